package stack

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// The table agrees with a map, whatever comes and goes.
func TestConnTableAgainstTheModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var table connTable
	table.init([2]uint64{rng.Uint64(), rng.Uint64()})
	model := make(map[tcp.ID]*Stream)
	id := func() tcp.ID {
		return tcp.ID{Local: 1, Remote: wire.Addr(rng.IntN(8)), LocalPort: uint16(rng.IntN(8)), RemotePort: uint16(rng.IntN(64))}
	}
	for n := range 60_000 {
		i := id()
		require.Same(t, model[i], table.get(&i))
		if grows := n/10_000%2 == 0; model[i] == nil && (grows || rng.IntN(4) == 0) {
			s := &Stream{id: i}
			model[i] = s
			table.insert(s)
		} else if model[i] != nil && (!grows || rng.IntN(4) == 0) {
			require.True(t, table.remove(model[i]))
			require.False(t, table.remove(model[i]))
			delete(model, i)
		}
		require.Equal(t, len(model), table.count)
	}
	seen := 0
	table.each(func(s *Stream) {
		require.Same(t, model[s.id], s)
		require.True(t, table.remove(s), "each may remove what it is shown")
		seen++
	})
	require.Equal(t, len(model), seen)
	require.Zero(t, table.count)
}

// However regular the names are, no chain becomes long; and what is many buckets is never rehashed at once.
func TestConnTableChains(t *testing.T) {
	const n = 20_000
	for name, id := range map[string]func(i int) tcp.ID{
		"ports of one client": func(i int) tcp.ID {
			return tcp.ID{Local: addr(hostIP), Remote: addr(peerIP), LocalPort: uint16(80 + i>>16), RemotePort: uint16(i)}
		},
		"clients": func(i int) tcp.ID {
			return tcp.ID{Local: addr(hostIP), Remote: wire.Addr(i), LocalPort: 80, RemotePort: 4000}
		},
		"clients, 256 apart": func(i int) tcp.ID {
			return tcp.ID{Local: addr(hostIP), Remote: wire.Addr(i << 8), LocalPort: 80, RemotePort: 4000}
		},
		"ports here": func(i int) tcp.ID {
			return tcp.ID{Local: wire.Addr(i >> 14), Remote: addr(peerIP), LocalPort: uint16(49152 + i%16384), RemotePort: 80}
		},
		"clients and ports": func(i int) tcp.ID {
			return tcp.ID{Local: addr(hostIP), Remote: wire.Addr(i % 250), LocalPort: 80, RemotePort: uint16(i / 250)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 7))
			var table connTable
			table.init([2]uint64{rng.Uint64(), rng.Uint64()})
			for i := range n {
				table.insert(&Stream{id: id(i)})
			}
			longest, looks := 0, 0
			for _, s := range table.buckets {
				length := 0
				for ; s != nil; s = s.chain {
					length++
					looks += length
				}
				longest = max(longest, length)
			}
			require.LessOrEqual(t, longest, 16)
			require.Less(t, float64(looks)/n, 2.2, "looks for one that is there")
		})
	}
}

// A flow has one owner, who alone gives it up.
func TestFlowTable(t *testing.T) {
	table, a, b := new(flowTable), new(Engine), new(Engine)
	id := tcp.ID{Local: 1, Remote: 2, LocalPort: 3, RemotePort: 4}
	require.Nil(t, table.get(&id))
	require.True(t, table.take(&id, a))
	require.False(t, table.take(&id, a))
	require.False(t, table.take(&id, b))
	table.leave(&id, b)
	require.Same(t, a, table.get(&id))
	table.leave(&id, a)
	require.Nil(t, table.get(&id))
	require.True(t, table.take(&id, b))
	var none *flowTable
	require.True(t, none.take(&id, a), "a card with one queue needs none")
	require.Nil(t, none.get(&id))
	none.leave(&id, a)
	shards := make(map[uint32]int)
	for port := range uint16(6400) {
		id.RemotePort = port
		shards[hashID(&id, &shardKey)%uint32(len(table.shards))]++
	}
	require.Len(t, shards, len(table.shards))
	for _, n := range shards {
		require.Less(t, n, 200)
	}
}
