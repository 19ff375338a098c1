package iperf3

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is the kernel's network, with what a test wants to be otherwise.
type loopback struct {
	listening chan netip.AddrPort
	tcp       func(*net.TCPConn) net.Conn       // nil: as it is
	udp       func(*net.UDPConn) net.PacketConn // nil: as it is
	packetErr error
}

func (l *loopback) Listen(addr netip.AddrPort) (net.Listener, error) {
	inner, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	l.listening <- inner.Addr().(*net.TCPAddr).AddrPort()
	if l.tcp == nil {
		return inner, nil
	}
	return listener{inner, l.tcp}, nil
}

type listener struct {
	*net.TCPListener
	wrap func(*net.TCPConn) net.Conn
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

func (l *loopback) ListenPacket(addr netip.AddrPort) (net.PacketConn, error) {
	if l.packetErr != nil {
		return nil, l.packetErr
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	if l.udp == nil {
		return c, nil
	}
	return l.udp(c), nil
}

// kernelConn shows what the kernel's TCP can do.
type kernelConn struct{ *net.TCPConn }

func (c kernelConn) control(f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	if err != nil {
		return err
	}
	return inner
}

func (c kernelConn) option(t *testing.T, level, name int) (value int) {
	t.Helper()
	require.NoError(t, c.control(func(fd int) (err error) {
		value, err = unix.GetsockoptInt(fd, level, name)
		return err
	}))
	return value
}

func (c kernelConn) TCPInfo() (retransmits uint64, rtt time.Duration, cwnd, mss int) {
	_ = c.control(func(fd int) error {
		i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			mss = int(i.Snd_mss)
			retransmits, rtt, cwnd = uint64(i.Total_retrans), time.Duration(i.Rtt)*time.Microsecond, int(i.Snd_cwnd)*mss
		}
		return err
	})
	return
}

func (c kernelConn) SetMaxSegment(bytes int) error {
	return c.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, bytes) })
}

func (c kernelConn) SetTOS(tos int) error {
	return c.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos) })
}

func (c kernelConn) SetCongestion(name string) error {
	return c.control(func(fd int) error { return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) })
}

func (c kernelConn) Congestion() (name string) {
	_ = c.control(func(fd int) (err error) {
		name, err = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		return err
	})
	return name
}

// kernelBatch shows recvmmsg and sendmmsg.
type kernelBatch struct {
	*net.UDPConn
	mu sync.Mutex // of largest
	// largest are the longest batches seen.
	largestRead, largestWrite int
}

func (k *kernelBatch) SetTOS(tos int) error { return ipv4.NewConn(k.UDPConn).SetTOS(tos) }

func (k *kernelBatch) ReadBatch(ms []Message) (int, error) {
	in := make([]ipv4.Message, len(ms))
	for i := range ms {
		in[i].Buffers = [][]byte{ms[i].Buf}
	}
	n, err := ipv4.NewPacketConn(k.UDPConn).ReadBatch(in, 0)
	for i := range in[:max(n, 0)] {
		ms[i].N, ms[i].Addr = in[i].N, in[i].Addr.(*net.UDPAddr).AddrPort()
	}
	k.mu.Lock()
	k.largestRead = max(k.largestRead, n)
	k.mu.Unlock()
	return n, err
}

func (k *kernelBatch) WriteBatch(ms []Message) (int, error) {
	out := make([]ipv4.Message, len(ms))
	for i := range ms {
		out[i].Buffers, out[i].Addr = [][]byte{ms[i].Buf}, net.UDPAddrFromAddrPort(ms[i].Addr)
	}
	k.mu.Lock()
	k.largestWrite = max(k.largestWrite, len(ms))
	k.mu.Unlock()
	for sent := 0; ; {
		n, err := ipv4.NewPacketConn(k.UDPConn).WriteBatch(out[sent:], 0)
		sent += max(n, 0)
		if err != nil || sent == len(out) {
			return sent, err
		}
	}
}

// record is a line of the log.
type record struct {
	level   slog.Level
	message string
	attrs   map[string]slog.Value
}

// journal is a log that a test reads.
type journal struct {
	mu      *sync.Mutex
	records *[]record
	added   chan struct{} // has something after a record came
	with    []slog.Attr
}

func newJournal() *journal {
	return &journal{mu: new(sync.Mutex), records: new([]record), added: make(chan struct{}, 1)}
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithGroup(string) slog.Handler            { return j }
func (j *journal) WithAttrs(a []slog.Attr) slog.Handler {
	k := *j
	k.with = append(append([]slog.Attr(nil), j.with...), a...)
	return &k
}

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	rec := record{level: r.Level, message: r.Message, attrs: map[string]slog.Value{}}
	for _, a := range j.with {
		rec.attrs[a.Key] = a.Value
	}
	r.Attrs(func(a slog.Attr) bool { rec.attrs[a.Key] = a.Value; return true })
	j.mu.Lock()
	*j.records = append(*j.records, rec)
	j.mu.Unlock()
	select {
	case j.added <- struct{}{}:
	default:
	}
	return nil
}

// find is the records with a message.
func (j *journal) find(message string) (found []record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range *j.records {
		if r.message == message {
			found = append(found, r)
		}
	}
	return found
}

// await waits for a record with a message, and returns the first.
func (j *journal) await(t *testing.T, message string) record {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		if r := j.find(message); len(r) > 0 {
			return r[0]
		}
		select {
		case <-j.added:
		case <-late:
			j.mu.Lock()
			defer j.mu.Unlock()
			require.Fail(t, "the log has no such record", "%s in %v", message, *j.records)
		}
	}
}

// serverUnderTest is a server on 127.0.0.1.
type serverUnderTest struct {
	server *Server
	at     netip.AddrPort
	log    *journal
	stop   func() // and waits
	ended  chan error
}

// serve runs a server until the test ends. edit may change what it is given.
func serve(t *testing.T, l *loopback, edit func(*Config)) *serverUnderTest {
	t.Helper()
	l.listening = make(chan netip.AddrPort, 1)
	s := &serverUnderTest{log: newJournal(), ended: make(chan error, 1)}
	cfg := Config{Network: l, Logger: slog.New(s.log), Timeout: 20 * time.Second, IdleTimeout: 20 * time.Second}
	if edit != nil {
		edit(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.server = New(cfg)
	go func() { s.ended <- s.server.Serve(ctx, netip.MustParseAddrPort("127.0.0.1:0")) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-s.ended:
			require.NoError(t, err)
		case <-time.After(10 * time.Second):
			require.Fail(t, "the server does not stop")
		}
	})
	select {
	case s.at = <-l.listening:
	case err := <-s.ended:
		require.NoError(t, err, "the server did not start")
	}
	t.Cleanup(s.stop)
	return s
}

// broken is a connection on which one setting fails.
type broken struct {
	*net.TCPConn
	setting string
	err     error
}

func (b broken) fails(setting string) error {
	if setting == b.setting {
		return b.err
	}
	return nil
}

func (b broken) SetNoDelay(bool) error      { return b.fails("SetNoDelay") }
func (b broken) SetMaxSegment(int) error    { return b.fails("SetMaxSegment") }
func (b broken) SetTOS(int) error           { return b.fails("SetTOS") }
func (b broken) SetReadBuffer(int) error    { return b.fails("SetReadBuffer") }
func (b broken) SetWriteBuffer(int) error   { return b.fails("SetWriteBuffer") }
func (b broken) SetCongestion(string) error { return b.fails("SetCongestion") }
func (b broken) Congestion() string         { return "reno" }

// brokenUDP is a socket whose calls go wrong as a test says.
type brokenUDP struct {
	*net.UDPConn
	read, write, tos, buffer func() error // nil: all is well
}

func now(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (b *brokenUDP) SetTOS(int) error        { return now(b.tos) }
func (b *brokenUDP) SetReadBuffer(int) error { return now(b.buffer) }

func (b *brokenUDP) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	if err := now(b.read); err != nil {
		return 0, netip.AddrPort{}, err
	}
	return b.UDPConn.ReadFromUDPAddrPort(p)
}

func (b *brokenUDP) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	if err := now(b.write); err != nil {
		return 0, err
	}
	return b.UDPConn.WriteToUDPAddrPort(p, to)
}

var errNoSuchAlgorithm error = syscall.ENOENT

func newLogger(j *journal) *slog.Logger { return slog.New(j) }
