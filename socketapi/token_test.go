package socketapi

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack"
)

func newTable() *table { return &table{free: noSlot} }

// Slots are numbered without a gap from chunk to chunk, and the numbers past the last slot lead nowhere.
func TestLocate(t *testing.T) {
	wantChunk, wantAt := 0, uint32(0)
	for i := range uint32(1 << slotBits) {
		chunk, at := locate(i)
		if chunk != wantChunk || at != wantAt {
			t.Fatalf("slot %d is %d in chunk %d, want %d in chunk %d", i, at, chunk, wantAt, wantChunk)
		}
		if wantAt++; wantAt == firstChunk<<wantChunk {
			wantChunk, wantAt = wantChunk+1, 0
		}
	}
	chunk, _ := locate(maxSlots - 1)
	require.Equal(t, chunks-1, chunk)
	chunk, at := locate(maxSlots)
	require.Equal(t, chunks, chunk, "a chunk that is never made")
	require.Zero(t, at)
}

// Tokens are found while their sockets are open, whatever the order of opening and closing.
func TestTable(t *testing.T) {
	tab, rnd := newTable(), rand.New(rand.NewPCG(1, 2))
	open, closed := map[Token]*socket{}, map[Token]bool{}
	for range 20000 {
		if rnd.IntN(5) < 3 {
			s := new(socket)
			require.NoError(t, tab.insert(s))
			require.False(t, closed[s.token] || open[s.token] != nil, "token %d was given out before", s.token)
			open[s.token] = s
			continue
		}
		for tok, s := range open {
			require.Same(t, s, tab.remove(tok))
			require.Nil(t, tab.remove(tok))
			delete(open, tok)
			closed[tok] = true
			break
		}
	}
	for tok, s := range open {
		require.Same(t, s, tab.lookup(tok))
	}
	for tok := range closed {
		require.Nil(t, tab.lookup(tok))
	}
	released := 0
	require.True(t, tab.close(func(s *socket) { released++ }))
	require.Equal(t, len(open), released)
	require.False(t, tab.close(nil))
}

// A slot whose generations are used up is never used again, so that a token means one socket for ever.
func TestSlotRetires(t *testing.T) {
	tab := newTable()
	s := new(socket)
	require.NoError(t, tab.insert(s))
	require.Same(t, s, tab.remove(s.token))
	tab.slot(0).generation = lastGeneration
	last, next := new(socket), new(socket)
	require.NoError(t, tab.insert(last))
	require.Equal(t, Token(lastGeneration)<<slotBits, last.token)
	require.Positive(t, last.token)
	require.Same(t, last, tab.remove(last.token))
	require.NoError(t, tab.insert(next))
	require.Equal(t, Token(1), next.token, "the first slot is retired")
}

// When all slots are taken, a closed one is the next to be given out.
func TestSlotsRunOut(t *testing.T) {
	tab := newTable()
	first := new(socket)
	require.NoError(t, tab.insert(first))
	tab.used = maxSlots
	require.ErrorIs(t, tab.insert(new(socket)), syscall.EMFILE)
	require.Same(t, first, tab.remove(first.token))
	require.NoError(t, tab.insert(new(socket)))
	require.ErrorIs(t, tab.insert(new(socket)), syscall.EMFILE)
}

// A client for whom there is no token is turned away, and the next is accepted when there is one.
func TestAcceptWithoutToken(t *testing.T) {
	st := stack.New(stack.Config{})
	st.Start()
	k := New(st)
	l, err := k.Socket(AF_INET, SOCK_STREAM, 0)
	require.NoError(t, err)
	addr := netip.AddrPortFrom(INADDR_LOOPBACK, 0)
	require.NoError(t, k.Bind(l, &addr))
	require.NoError(t, k.Listen(l, 1))
	client, err := k.Socket(AF_INET, SOCK_STREAM, 0)
	require.NoError(t, err)
	require.NoError(t, k.Connect(client, addr))
	used := k.sockets.used
	k.sockets.used = maxSlots
	_, _, err = k.Accept(l)
	require.ErrorIs(t, err, syscall.EMFILE)
	k.sockets.used = used
	_, err = k.Recv(client, make([]byte, 1), 0)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	next, err := k.Socket(AF_INET, SOCK_STREAM, 0)
	require.NoError(t, err)
	require.NoError(t, k.Connect(next, addr), "its place is free")
	_, _, err = k.Accept(l)
	require.NoError(t, err)
	require.NoError(t, k.Close())
	require.NoError(t, st.Close())
}

// A million opens and closes of both kinds of socket from several goroutines leave nothing behind, and no stale token is ever
// answered.
func TestMillionOpens(t *testing.T) {
	const workers, each, kept = 4, 250_000 / slowdown, 64
	k := New(stack.New(stack.Config{}))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var stale [kept]Token
			for i := range stale {
				stale[i] = -1
			}
			rnd := rand.New(rand.NewPCG(uint64(w), 0))
			var open []Token
			for i := range each {
				s, err := k.Socket(AF_INET, [...]int{SOCK_DGRAM, SOCK_STREAM}[i%2], 0)
				if err != nil {
					t.Error(err)
					return
				}
				open = append(open, s)
				if len(open) > kept {
					j := rnd.IntN(len(open))
					s, open[j] = open[j], open[len(open)-1]
					open = open[:len(open)-1]
					if err := k.CloseSocket(s); err != nil {
						t.Error(err)
						return
					}
					stale[i%kept] = s
				}
				// Another worker may have the slot by now.
				if old := stale[rnd.IntN(kept)]; k.sockets.lookup(old) != nil {
					t.Errorf("the closed token %d names a socket", old)
					return
				}
			}
			for _, s := range open {
				if err := k.CloseSocket(s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Nil(t, k.sockets.lookup(0), "all are closed")
	require.LessOrEqual(t, k.sockets.used, uint32(workers*(kept+1)), "slots are reused")
	require.Empty(t, k.stack.Sockets())
	require.NoError(t, k.Close())
}

func BenchmarkLookup(b *testing.B) {
	tab := newTable()
	var tokens [1024]Token
	for i := range tokens {
		s := new(socket)
		require.NoError(b, tab.insert(s))
		tokens[i] = s.token
	}
	i := 0
	for b.Loop() {
		if tab.lookup(tokens[i&1023]) == nil {
			b.Fatal("lost")
		}
		i++
	}
}
