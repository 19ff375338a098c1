package socketapi_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/linktest"
)

// openStacks is the provider of this process: Kits on two stacks, joined by two wires in memory.
func openStacks(t testing.TB, moving bool) *world {
	return joinStacks(t, moving, newStack(1), newStack(2))
}

func newStack(seed uint64) *stack.Stack { return stack.New(stack.Config{Seed: seed}) }

// joinStacks makes a world of two stacks that have nothing yet.
func joinStacks(t testing.TB, moving bool, near, far *stack.Stack) *world {
	var ends []*linktest.End
	w := &world{near: machine(t, near), far: machine(t, far), cut: func() {
		lose := func(loss float64) {
			for _, e := range ends {
				e.SetFaults(linktest.Faults{Loss: loss})
			}
		}
		lose(1)
		t.Cleanup(func() { lose(0) }) // so that the machines can end in order
	}}
	for i := range 2 {
		wire := linktest.New(linktest.Config{RealTime: true})
		ends = append(ends, wire.End(0), wire.End(1))
		w.near.addCard(near, wire.End(0), i, 1)
		w.far.addCard(far, wire.End(1), i, 2)
	}
	far.Start()
	if moving {
		near.Start()
	}
	return w
}

// machine is a host on s with one program.
func machine(t testing.TB, s *stack.Stack) *host {
	again := func() calls {
		k := New(s)
		t.Cleanup(func() { require.NoError(t, k.Close()) })
		return k
	}
	// Cleanups run from the last to the first: the programs end before their machine.
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return &host{calls: again(), t: t, again: again, start: s.Start}
}

// addCard adds card i with the address 10.0.i.n/24.
func (h *host) addCard(s *stack.Stack, l stack.Link, i, n int) {
	h.t.Helper()
	addr := netip.AddrFrom4([4]byte{10, 0, byte(i), byte(n)})
	_, err := s.AddInterface(stack.InterfaceConfig{
		Name: "card" + strconv.Itoa(i), Links: []stack.Link{l}, Mode: stack.Owned, Addresses: []netip.Prefix{netip.PrefixFrom(addr, 24)},
	})
	require.NoError(h.t, err)
	h.cards = append(h.cards, addr)
}
