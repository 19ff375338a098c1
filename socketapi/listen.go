package socketapi

import (
	"net/netip"
	"syscall"
)

// Listen belongs to streams. Errors: EBADF; EINVAL, t is not a stream, which is every socket so far.
func (k *Kit) Listen(t Token, _ int) error {
	if _, err := k.find(t); err != nil {
		return err
	}
	return syscall.EINVAL
}

// Accept belongs to streams. Errors: EBADF; EINVAL, t does not listen, which is every socket so far.
func (k *Kit) Accept(t Token) (Token, netip.AddrPort, error) {
	if _, err := k.find(t); err != nil {
		return -1, netip.AddrPort{}, err
	}
	return -1, netip.AddrPort{}, syscall.EINVAL
}
