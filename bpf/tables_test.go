package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

// plainTables lie in ordinary memory instead of a program's maps.
func plainTables() *Tables {
	return &Tables{config: new(bpfKitConfig), ports: make([]bpfKitPorts, MaxAddresses+1)}
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// lookup searches as the program does: from the hash on, up to an empty cell.
func lookup(t *Tables, addr netip.Addr) (kind Kind, slot uint16) {
	b := addr.As4()
	number := binary.BigEndian.Uint32(b[:])
	start := number * 0x9e3779b1 >> 24
	for n := range uint32(256) {
		c := t.config.Cells[(start+n)%256]
		if c == 0 {
			break
		}
		if uint32(c>>32) == number {
			return Kind(c >> 16), uint16(c)
		}
	}
	return 0, 0
}

func isBound(t *Tables, s space, slot uint16, n uint16) bool {
	return t.ports[slot].Bound[s][n/64]>>(n%64)&1 == 1
}

// colliding are addresses whose probe chains all begin in the same cell.
func colliding(cell, count int) []netip.Addr {
	var found []netip.Addr
	for n := uint32(0x0a000001); len(found) < count; n++ {
		if hash(n) == cell {
			found = append(found, address(n))
		}
	}
	return found
}

func TestAddressKinds(t *testing.T) {
	tables := plainTables()
	for _, kind := range []Kind{Shared, Owned, Broadcast, Shared, Broadcast, Owned} {
		require.NoError(t, tables.SetAddress(shared1, kind))
		got, slot := lookup(tables, shared1)
		require.Equal(t, kind, got)
		require.Equal(t, kind == Broadcast, slot == broadcastSlot)
	}
	require.NoError(t, tables.RemoveAddress(shared1))
	got, _ := lookup(tables, shared1)
	require.Zero(t, got)
	require.Zero(t, *tables.config, "an empty table has marks left")
}

func TestPortsOutliveAChangeOfKind(t *testing.T) {
	tables := plainTables()
	require.NoError(t, tables.SetAddress(shared1, Shared))
	require.NoError(t, tables.BindPort(UDP, shared1, 7))
	require.NoError(t, tables.SetAddress(shared1, Owned))
	require.NoError(t, tables.SetAddress(shared1, Shared))
	_, slot := lookup(tables, shared1)
	require.True(t, isBound(tables, spaceUDP, slot, 7))

	// A broadcast address has none of its own, and comes back with none.
	require.NoError(t, tables.SetAddress(shared1, Broadcast))
	require.NoError(t, tables.SetAddress(shared1, Shared))
	require.Equal(t, make([]bpfKitPorts, MaxAddresses+1), tables.ports)
}

func TestFullTables(t *testing.T) {
	tables := plainTables()
	addr := func(i int) netip.Addr { return address(0x0a000001 + uint32(i)*0x10001) }
	for i := range MaxAddresses {
		require.NoError(t, tables.SetAddress(addr(i), []Kind{Shared, Owned}[i%2]))
		require.NoError(t, tables.SetAddress(addr(i+1000), Broadcast))
	}
	for _, kind := range []Kind{Shared, Owned, Broadcast} {
		err := tables.SetAddress(stranger, kind)
		require.ErrorIs(t, err, ErrFull)
		require.ErrorContains(t, err, "64", "the limit is not named")
		require.ErrorContains(t, err, stranger.String())
	}
	require.NoError(t, tables.SetAddress(addr(0), Owned), "a change needs no room")

	slots := map[uint16]bool{}
	for i := range MaxAddresses {
		_, slot := lookup(tables, addr(i))
		slots[slot] = true
		kind, _ := lookup(tables, addr(i+1000))
		require.Equal(t, Broadcast, kind)
	}
	require.Len(t, slots, MaxAddresses, "two addresses share a slot")
	require.NotContains(t, slots, uint16(broadcastSlot))

	require.NoError(t, tables.RemoveAddress(addr(3)))
	require.NoError(t, tables.SetAddress(stranger, Shared))
}

// Removing in any order keeps every other address of a chain found, and leaves nothing behind.
func TestProbeChains(t *testing.T) {
	for _, first := range []int{0, 100, 255} { // 255: the chain wraps around
		addrs := colliding(first, MaxAddresses)
		random := rand.New(rand.NewPCG(uint64(first), 1))
		for range 5 {
			tables := plainTables()
			for _, a := range addrs {
				require.NoError(t, tables.SetAddress(a, Owned))
			}
			random.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
			for i, gone := range addrs {
				require.NoError(t, tables.RemoveAddress(gone))
				for j, a := range addrs {
					kind, _ := lookup(tables, a)
					require.Equal(t, j > i, kind == Owned)
				}
			}
			require.Zero(t, *tables.config, "an empty table has marks left")
		}
	}
}

// Whatever is done to the tables, the program finds what a map would.
func TestTablesAgainstMaps(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	tables, kinds, bound := plainTables(), map[netip.Addr]Kind{}, map[binding]bool{}
	addrs := append(colliding(17, 20), colliding(18, 20)...)
	for range 30 {
		addrs = append(addrs, address(random.Uint32()))
	}
	for step := range 20000 {
		addr, n := addrs[random.IntN(len(addrs))], uint16(random.IntN(130))
		s := space(random.IntN(3))
		switch op := random.IntN(8); {
		case op < 2:
			kind := Kind(1 + random.IntN(3))
			require.NoError(t, tables.SetAddress(addr, kind))
			if kind == Broadcast || kinds[addr] == Broadcast {
				forgetAddress(bound, addr)
			}
			kinds[addr] = kind
		case op == 2:
			err := tables.RemoveAddress(addr)
			require.Equal(t, kinds[addr] == 0, err != nil)
			delete(kinds, addr)
			forgetAddress(bound, addr)
		default:
			on := op%2 == 0
			err := tables.setBound(s, addr, n, on)
			if kinds[addr] == Shared || kinds[addr] == Owned {
				require.NoError(t, err)
				bound[binding{s, addr, n}] = on
			} else {
				require.ErrorIs(t, err, ErrNoAddress)
			}
		}
		if step%250 == 0 {
			requireSame(t, tables, addrs, kinds, bound)
		}
	}
}

func forgetAddress(bound map[binding]bool, addr netip.Addr) {
	for b := range bound {
		if b.addr == addr {
			delete(bound, b)
		}
	}
}

func requireSame(t *testing.T, tables *Tables, addrs []netip.Addr, kinds map[netip.Addr]Kind, bound map[binding]bool) {
	t.Helper()
	var anywhere [130]bool
	for _, addr := range addrs {
		kind, slot := lookup(tables, addr)
		require.Equal(t, kinds[addr], kind)
		if kind != Shared && kind != Owned {
			continue
		}
		for n := range uint16(130) {
			for s := range spaceEcho + 1 {
				require.Equal(t, bound[binding{s, addr, n}], isBound(tables, s, slot, n))
			}
			anywhere[n] = anywhere[n] || bound[binding{spaceUDP, addr, n}]
		}
	}
	for n, want := range anywhere {
		require.Equal(t, want, isBound(tables, spaceUDP, broadcastSlot, uint16(n)), "broadcasts to port %d", n)
	}
}

func TestBroadcastPortsAreEverybodys(t *testing.T) {
	tables := plainTables()
	require.NoError(t, tables.SetAddress(shared1, Shared))
	require.NoError(t, tables.SetAddress(owned1, Owned))
	heard := func() bool { return isBound(tables, spaceUDP, broadcastSlot, 7) }

	require.NoError(t, tables.BindPort(TCP, shared1, 7))
	require.NoError(t, tables.BindICMPID(shared1, 7))
	require.False(t, heard(), "only UDP is broadcast")
	require.NoError(t, tables.BindPort(UDP, shared1, 7))
	require.NoError(t, tables.SetAddress(subnet, Broadcast))
	require.True(t, heard(), "a broadcast address that comes later knows the ports")
	require.NoError(t, tables.BindPort(UDP, owned1, 7))
	require.NoError(t, tables.UnbindPort(UDP, shared1, 7))
	require.True(t, heard(), "the other address still has it")
	require.NoError(t, tables.RemoveAddress(owned1))
	require.False(t, heard(), "nobody has it any more")
}

func TestFirstAndLastNumbers(t *testing.T) {
	tables := plainTables()
	require.NoError(t, tables.SetAddress(shared1, Shared))
	_, slot := lookup(tables, shared1)
	for _, n := range []uint16{0, 63, 64, 65535} {
		for s := range spaceEcho + 1 {
			require.NoError(t, tables.setBound(s, shared1, n, true))
			require.NoError(t, tables.setBound(s, shared1, n, true), "binding twice is as good as once")
			require.True(t, isBound(tables, s, slot, n))
			require.NoError(t, tables.setBound(s, shared1, n, false))
		}
	}
	require.Equal(t, make([]bpfKitPorts, MaxAddresses+1), tables.ports)
}

func TestRefusals(t *testing.T) {
	tables := plainTables()
	require.NoError(t, tables.SetAddress(shared1, Shared))
	require.NoError(t, tables.SetAddress(subnet, Broadcast))
	before := *tables.config

	for _, addr := range []netip.Addr{{}, netip.IPv6Loopback(), netip.IPv4Unspecified()} {
		require.ErrorContains(t, tables.SetAddress(addr, Owned), "IPv4")
		require.ErrorContains(t, tables.RemoveAddress(addr), "IPv4")
		require.ErrorContains(t, tables.BindPort(UDP, addr, 7), "IPv4")
	}
	require.ErrorContains(t, tables.SetAddress(shared2, 0), "kind 0")
	require.ErrorContains(t, tables.SetAddress(shared2, 4), "kind 4")
	require.ErrorContains(t, tables.BindPort(47, shared1, 7), "protocol 47")
	require.ErrorIs(t, tables.RemoveAddress(stranger), ErrNoAddress)
	for _, addr := range []netip.Addr{stranger, subnet} {
		require.ErrorIs(t, tables.BindPort(UDP, addr, 7), ErrNoAddress)
		require.ErrorIs(t, tables.UnbindPort(TCP, addr, 7), ErrNoAddress)
		require.ErrorIs(t, tables.BindICMPID(addr, 7), ErrNoAddress)
		require.ErrorIs(t, tables.UnbindICMPID(addr, 7), ErrNoAddress)
	}
	require.Equal(t, before, *tables.config)
	require.NoError(t, tables.BindPort(UDP, netip.MustParseAddr("::ffff:10.0.0.1"), 7), "a mapped IPv4 address is one")
}

func TestTablesOfAForeignCollection(t *testing.T) {
	_, err := NewTables(&ebpf.Collection{})
	require.ErrorContains(t, err, "not one of kit's")
}

func TestClosedTables(t *testing.T) {
	tables := plainTables()
	require.NoError(t, tables.SetAddress(shared1, Shared))
	require.NoError(t, tables.Close())
	require.NoError(t, tables.Close())
	require.ErrorIs(t, tables.SetEnabled(true), ErrClosed)
	require.ErrorIs(t, tables.SetAddress(shared1, Shared), ErrClosed)
	require.ErrorIs(t, tables.RemoveAddress(shared1), ErrClosed)
	require.ErrorIs(t, tables.BindPort(UDP, shared1, 7), ErrClosed)
	require.ErrorIs(t, tables.BindICMPID(shared1, 7), ErrClosed)
	_, err := tables.Stats()
	require.ErrorIs(t, err, ErrClosed)
}

// Many goroutines at once leave the tables as if they had come one after the other.
func TestConcurrentChanges(t *testing.T) {
	tables := plainTables()
	var group sync.WaitGroup
	for i := range 8 {
		addr := address(0x0a000010 + uint32(i))
		group.Go(func() {
			for n := range uint16(500) {
				if tables.SetAddress(addr, Shared) != nil || tables.BindPort(UDP, addr, n) != nil ||
					tables.BindPort(TCP, addr, n) != nil || tables.UnbindPort(UDP, addr, n) != nil {
					t.Error("a change failed")
				}
			}
			if i%2 == 0 && tables.RemoveAddress(addr) != nil {
				t.Error("a removal failed")
			}
		})
	}
	group.Wait()
	for i := range 8 {
		kind, slot := lookup(tables, address(0x0a000010+uint32(i)))
		require.Equal(t, i%2 == 1, kind == Shared)
		if kind == Shared {
			for n := range uint16(500) {
				require.True(t, isBound(tables, spaceTCP, slot, n))
			}
		}
	}
	require.Zero(t, tables.ports[broadcastSlot])
}

// Binding is a store, not a system call, and makes no garbage.
func TestBindingAllocatesNothing(t *testing.T) {
	tables := plainTables()
	require.NoError(t, tables.SetAddress(shared1, Shared))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_ = tables.BindPort(UDP, shared1, 7)
		_ = tables.UnbindPort(UDP, shared1, 7)
	}))
}
