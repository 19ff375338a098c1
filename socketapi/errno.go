package socketapi

import "syscall"

// find returns the socket of t, or EBADF.
func (k *Kit) find(t Token) (*socket, error) {
	if s := k.sockets.lookup(t); s != nil {
		return s, nil
	}
	return nil, syscall.EBADF
}

// overtaken is the error of a call that had found its socket. EBADF then means that another goroutine closed it during
// the call, which is EINTR; where the token is still good it was the whole stack that closed.
func (s *socket) overtaken(err error) error {
	if err != syscall.EBADF {
		return err
	}
	if s.kit.sockets.lookup(s.token) == s {
		return syscall.ENETDOWN
	}
	return syscall.EINTR
}
