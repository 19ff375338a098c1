package stack

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// What an engine writes while packets pass is on no cache line that another one uses, as the addresses show: of the engines
// themselves, of their lists, of a socket's halves, of both ends of what they pass on to each other.
func TestEnginesShareNoCacheLines(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 4 })
	sockets := []*sock{h.bind("10.0.0.1:7"), h.bind("10.0.0.1:8"), h.bind("10.0.0.1:9")}
	used := make(map[uintptr]string) // by whom each line is
	mine := func(e *Engine, what string, at unsafe.Pointer, size uintptr) {
		who := fmt.Sprintf("engine %d", e.number)
		for line := uintptr(at) / cacheLine; line <= (uintptr(at)+size-1)/cacheLine; line++ {
			if other, ok := used[line]; ok && other != who {
				t.Errorf("%s of %s is on a cache line of %s", what, who, other)
			}
			used[line] = who
		}
	}
	for _, e := range h.engines {
		mine(e, "the engine", unsafe.Pointer(e), unsafe.Sizeof(*e))
		mine(e, "the TCP layer", unsafe.Pointer(e.layer), unsafe.Sizeof(*e.layer))
		mine(e, "the list unread", unsafe.Pointer(unsafe.SliceData(e.unread)), uintptr(cap(e.unread))*8)
		mine(e, "the list senders", unsafe.Pointer(unsafe.SliceData(e.senders)), uintptr(cap(e.senders))*8)
		mine(e, "the list passed", unsafe.Pointer(unsafe.SliceData(e.passed)), uintptr(cap(e.passed))*8)
		mine(e, "the list active", unsafe.Pointer(unsafe.SliceData(e.active)), uintptr(cap(e.active))*8)
		mine(e, "the list serving", unsafe.Pointer(unsafe.SliceData(e.serving)), uintptr(cap(e.serving))*8)
		mine(e, "the inboxes", unsafe.Pointer(unsafe.SliceData(e.inboxes)), uintptr(cap(e.inboxes))*8)
		for _, s := range sockets {
			if half := s.halves[e.number].Load(); half != nil {
				mine(e, "a socket's half", unsafe.Pointer(half), unsafe.Sizeof(*half))
				mine(e, "the rest of it", unsafe.Pointer(half.halfRest), unsafe.Sizeof(*half.halfRest))
			}
		}
		for _, to := range h.iface.engines {
			if e == to {
				continue
			}
			in := e.inboxTo(to)
			mine(e, "what it passes on", unsafe.Pointer(&in.sending), unsafe.Sizeof(in.sending))
			mine(to, "what it is passed", unsafe.Pointer(&in.r), unsafe.Sizeof(in.r))
		}
	}
	for _, s := range sockets {
		require.NotNil(t, s.halves[h.iface.engines[3].number].Load(), "a socket is on each engine")
	}
}

// What a packet that arrives for a socket touches of it is one line.
func TestArrivalsTouchOneLineOfASocket(t *testing.T) {
	require.EqualValues(t, cacheLine, unsafe.Sizeof(half{}))
}

// What the user's side of a socket writes with each call is on no line that the engines read for each packet.
func TestUsersWriteBesideWhatEnginesRead(t *testing.T) {
	require.Zero(t, unsafe.Sizeof(Datagram{})%cacheLine)
	require.Zero(t, unsafe.Offsetof(Datagram{}.rmu)%cacheLine)
	require.GreaterOrEqual(t, unsafe.Offsetof(Engine{}.dirty)-unsafe.Offsetof(Engine{}.icmpBuf)-unsafe.Sizeof(Engine{}.icmpBuf), uintptr(cacheLine))
	require.GreaterOrEqual(t, unsafe.Offsetof(Stack{}.addressWaiters)-unsafe.Offsetof(Stack{}.list), uintptr(cacheLine+8))
	require.GreaterOrEqual(t, unsafe.Sizeof(flowTable{}), uintptr(64*cacheLine))
	require.EqualValues(t, 2*cacheLine, unsafe.Sizeof(routeLock{}))
}
