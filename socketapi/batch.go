package socketapi

import (
	"syscall"

	"kitnet.dev/kit/stack"
)

// ReadBatch receives up to len(ms) messages: it waits, as Recv does, until there is one, takes those that are there,
// and returns how many. The caller sets each Buf; N, Size, Addr, Dst, TTL and TOS are filled in. A message was cut where
// Size is more than N. The socket need not be connected. The one flag is MSG_DONTWAIT. Errors are RecvFrom's.
func (k *Kit) ReadBatch(t Token, ms []stack.Message, flags int) (int, error) {
	s, err := k.find(t)
	if err != nil || len(ms) == 0 {
		return 0, err
	}
	if s.st != nil {
		return 0, syscall.EOPNOTSUPP
	}
	return s.read(ms, flags)
}

// WriteBatch sends each Buf of ms as one message to its Addr, or to the connected peer where Addr is zero, and returns
// how many it sent. It waits for room, as Send does, until all are sent. Fewer than len(ms) were sent only with an error,
// which is about the first that was not; EWOULDBLOCK says that there was no room for it, or not in time. The one flag is
// MSG_DONTWAIT. Errors are SendTo's.
func (k *Kit) WriteBatch(t Token, ms []stack.Message, flags int) (int, error) {
	s, err := k.find(t)
	if err != nil || len(ms) == 0 {
		return 0, err
	}
	if s.st != nil {
		return 0, syscall.EOPNOTSUPP
	}
	return s.write(ms, flags)
}

// Handle makes h receive the messages of a UDP socket instead of the receiving calls, from the next one on; nil gives them
// back to those, which meanwhile take what came before and then wait. h runs on the engine, with the frame as it came,
// before any copy, and may answer in place. It must not block, keep the packet or its slices, or call anything of the Kit.
// Errors: EBADF; EOPNOTSUPP, an ICMP socket or a stream; EINTR.
func (k *Kit) Handle(t Token, h stack.Handler) error {
	s, err := k.find(t)
	if err != nil {
		return err
	}
	if s.st != nil {
		return syscall.EOPNOTSUPP
	}
	return s.overtaken(s.d.SetHandler(h))
}
