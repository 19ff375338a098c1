package iperf3

import (
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// brokenListener fails a few times, and then for good.
type brokenListener struct {
	net.Listener
	failures int
}

func (b *brokenListener) Accept() (net.Conn, error) {
	if b.failures--; b.failures > 0 {
		return nil, syscall.EMFILE
	}
	return b.Listener.Accept()
}

type brokenNetwork struct {
	loopback
	inner net.Listener
	err   error
}

func (b *brokenNetwork) Listen(netip.AddrPort) (net.Listener, error) {
	if b.err != nil {
		return nil, b.err
	}
	return &brokenListener{b.inner, 4}, nil
}

func TestServeFails(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:5201")
	err := New(Config{Network: &brokenNetwork{err: syscall.EADDRINUSE}}).Serve(t.Context(), at)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "127.0.0.1:5201")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	log := newJournal()
	ended := make(chan error)
	s := New(Config{Network: &brokenNetwork{inner: l}, Logger: newLogger(log)})
	go func() { ended <- s.Serve(t.Context(), at) }()
	u := &serverUnderTest{at: l.Addr().(*net.TCPAddr).AddrPort(), log: log}
	u.serves(t)
	require.Len(t, log.find("iperf3 cannot accept a connection, and goes on trying"), 1)
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-ended, net.ErrClosed)
}

// endless reads as a connection that always has data, until it has given so many times.
type endless struct {
	net.Conn
	left int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.left--; e.left < 0 {
		return 0, io.EOF
	}
	return len(b), nil
}

func (e *endless) Write(b []byte) (int, error) {
	if e.left--; e.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

// A budget is spent by all streams together, in whole blocks.
func TestBudget(t *testing.T) {
	for bytes, want := range map[int64]int64{1: 1000, 1000: 1000, 1001: 2000, 10000: 10000} {
		budget := &atomic.Int64{}
		budget.Store(bytes)
		var sent int64
		for range 3 {
			s := newStream(0, true)
			s.conn = &endless{left: 100}
			s.transmit(make([]byte, 1000), newPacer(&params{length: 1000}, time.Now(), nil), budget)
			sent += s.bytes.Load()
		}
		require.Equal(t, want, sent, "%d", bytes)
	}
}

// Neither a read nor a write of TCP allocates.
func TestTCPDoesNotAllocate(t *testing.T) {
	cost := func(times int, sends bool) float64 {
		return testing.AllocsPerRun(5, func() {
			s := newStream(0, sends)
			s.conn = &endless{left: times}
			if sends {
				s.transmit(make([]byte, 1000), newPacer(&params{length: 1000}, time.Now(), nil), nil)
			} else {
				s.receive(make([]byte, 1000), time.Now())
			}
			require.Equal(t, int64(times*1000), s.bytes.Load())
		})
	}
	for _, sends := range []bool{false, true} {
		require.Equal(t, cost(10, sends), cost(10000, sends), "sends: %v", sends)
	}
}

// Nor does a datagram through the kernel's socket.
func TestUDPDoesNotAllocate(t *testing.T) {
	a, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	require.NoError(t, err)
	defer a.Close()
	ms := []Message{{Buf: make([]byte, 100), Addr: a.LocalAddr().(*net.UDPAddr).AddrPort()}}
	r, w := reader(a), writer(a)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		n, err := w.WriteBatch(ms)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		n, err = r.ReadBatch(ms)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}))
}
