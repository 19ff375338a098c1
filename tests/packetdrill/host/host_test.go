package host

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// A peer plays the other end of one connection by hand.
type peer struct {
	t    *testing.T
	h    *Host
	from netip.AddrPort
	seq  wire.Seq // next of ours
	ack  wire.Seq // next of the host's
	// of the last segment that left
	segment wire.TCP
	at      int64
}

var (
	remote = netip.MustParseAddrPort("192.0.2.1:4000")
	local  = netip.MustParseAddrPort("192.168.0.1:8080")
)

// newPeer makes a host with no settings but those named.
func newPeer(t *testing.T, flags string) *peer {
	cfg, err := ParseFlags("proc= " + flags)
	require.NoError(t, err)
	cfg.Logf = func(f string, args ...any) { t.Errorf(f, args...) }
	return &peer{t: t, h: New(cfg), from: remote, seq: 1000}
}

func (p *peer) arrives(flags wire.TCPFlags, n int) {
	p.t.Helper()
	b := make([]byte, wire.IPv4Len+wire.TCPLen+n)
	from, _ := wire.AddrFrom(p.from.Addr())
	to, _ := wire.AddrFrom(local.Addr())
	wire.PutTCP(b[wire.IPv4Len:], &wire.TCPFields{
		Src: from, Dst: to, SrcPort: p.from.Port(), DstPort: local.Port(),
		Seq: p.seq, Ack: p.ack, Flags: flags, Window: 60000, PayloadLen: n,
	}, 0)
	wire.PutIPv4(b, &wire.IPv4Fields{TotalLength: len(b), DF: true, TTL: 64, Protocol: wire.ProtocolTCP, Src: from, Dst: to})
	require.NoError(p.t, p.h.Inject(b))
	p.seq = p.seq.Add(n)
	if flags&(wire.SYN|wire.FIN) != 0 {
		p.seq++
	}
}

// leaves wants a segment with these flags and n bytes.
func (p *peer) leaves(flags wire.TCPFlags, n int) {
	p.t.Helper()
	b := make([]byte, 2000)
	length, at, ok := p.h.Take(b)
	require.True(p.t, ok)
	require.NotZero(p.t, length, "nothing leaves")
	ip, err := wire.ParseIPv4(b[:length])
	require.NoError(p.t, err)
	p.segment, err = wire.ParseTCP(ip.Payload())
	require.NoError(p.t, err)
	require.Equal(p.t, flags, p.segment.Flags())
	require.Len(p.t, p.segment.Payload(), n)
	p.at = at
	p.ack = p.segment.Seq().Add(n)
	if flags&(wire.SYN|wire.FIN) != 0 {
		p.ack++
	}
}

func (p *peer) silence() {
	p.t.Helper()
	n, _, ok := p.h.Take(make([]byte, 2000))
	require.True(p.t, ok)
	require.Zero(p.t, n)
}

func (p *peer) listening() int {
	p.t.Helper()
	fd := p.h.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	require.Positive(p.t, fd)
	p.t.Cleanup(func() { p.h.Close(fd) })
	require.Zero(p.t, p.h.Bind(fd, local))
	require.Zero(p.t, p.h.Listen(fd, 1))
	return fd
}

func (p *peer) accepted() int {
	p.t.Helper()
	l := p.listening()
	p.arrives(wire.SYN, 0)
	p.leaves(wire.SYN|wire.ACK, 0)
	p.arrives(wire.ACK, 0)
	fd := p.h.Accept(l)
	require.Positive(p.t, fd)
	require.Equal(p.t, remote, p.h.Peer(fd))
	p.t.Cleanup(func() { p.h.Close(fd) })
	return fd
}

func one(b []byte) [][]byte { return [][]byte{b} }

// A call that waits ends with the packet that it waits for, at the moment when that comes, and time stands until its caller
// was told.
func TestCallsWait(t *testing.T) {
	p := newPeer(t, "")
	l := p.listening()
	require.Equal(t, Blocked, p.h.Accept(l))
	require.Equal(t, -int(unix.EBUSY), p.h.Accept(l), "one call at a time")
	p.arrives(wire.SYN, 0)
	p.leaves(wire.SYN|wire.ACK, 0)
	require.True(t, p.h.Sleep(p.h.Now()+50_000))
	_, ended := p.h.Ended()
	require.False(t, ended)
	p.arrives(wire.ACK, 0)
	before := p.h.Now()
	require.False(t, p.h.Sleep(before+1_000_000), "the caller is to be told")
	_, _, ok := p.h.Take(make([]byte, 2000))
	require.False(t, ok)
	require.Less(t, p.h.Now(), before+100)
	fd, ended := p.h.Ended()
	require.True(t, ended)
	require.True(t, p.h.Owns(fd))
	require.Equal(t, remote, p.h.Peer(fd))

	b := make([]byte, 10)
	require.Equal(t, Blocked, p.h.Read(fd, one(b), 0))
	require.Equal(t, -int(unix.EAGAIN), p.h.Read(fd, one(b), unix.MSG_DONTWAIT))
	require.Equal(t, -int(unix.EDEADLK), p.h.Outlast(), "nobody is there to send anything")
	require.Equal(t, Blocked, p.h.Poll(1, func(int) (int, int16) { return fd, unix.POLLIN }, func(int, int16) {}, 30))
	before = p.h.Now()
	require.Zero(t, p.h.Outlast())
	require.InDelta(t, 30_000, p.h.Now()-before, 10)
	require.Zero(t, p.h.Close(fd))
}

// Time is that of the timers: a SYN that nobody answers is sent after 1, 2, 4 … seconds, and in the end there is silence.
func TestVirtualTime(t *testing.T) {
	p := newPeer(t, "tcp_syn_retries=3")
	fd := p.h.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	require.Equal(t, -int(unix.EINPROGRESS), p.h.Connect(fd, remote))
	last := int64(0)
	for _, gap := range []float64{0, 1, 2, 4} {
		p.leaves(wire.SYN, 0)
		if gap > 0 {
			require.InDelta(t, gap, float64(p.at-last)/1e6, 0.002)
		}
		last = p.at
		require.Equal(t, -int(unix.EALREADY), p.h.Connect(fd, remote))
	}
	p.silence()
	require.Equal(t, -int(unix.ETIMEDOUT), p.h.Connect(fd, remote))
	require.Zero(t, p.h.Close(fd))
}

// listen(fd, 1) lets two connections wait, as Linux does.
func TestBacklog(t *testing.T) {
	p := newPeer(t, "")
	l := p.listening()
	for port := range uint16(3) {
		p.from = netip.AddrPortFrom(remote.Addr(), 4000+port)
		p.arrives(wire.SYN, 0)
		if port == 2 {
			p.silence()
			break
		}
		p.leaves(wire.SYN|wire.ACK, 0)
		p.arrives(wire.ACK, 0)
	}
	for range 2 {
		fd := p.h.Accept(l)
		require.Positive(t, fd)
		require.Zero(t, p.h.Close(fd))
	}
	require.Zero(t, p.h.Fcntl(l, unix.F_SETFL, unix.O_NONBLOCK))
	require.Equal(t, -int(unix.EAGAIN), p.h.Accept(l))
}

// struct tcp_info has its fields where include/uapi/linux/tcp.h puts them.
func TestTCPInfo(t *testing.T) {
	p := newPeer(t, "tcp_sack=0")
	fd := p.accepted()
	require.Equal(t, 3000, p.h.Write(fd, one(make([]byte, 3000)), 0))
	b := make([]byte, 400)
	n, r := p.h.Getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, b)
	require.Equal(t, [2]int{280, 0}, [2]int{n, r})
	u32 := func(at int) int { return int(binary.NativeEndian.Uint32(b[at:])) }
	require.Equal(t, uint8(1), b[0], "tcpi_state")
	require.Zero(t, b[5], "tcpi_options")
	require.Equal(t, 536, u32(16), "tcpi_snd_mss of a peer that announces none")
	require.Equal(t, 6, u32(24), "tcpi_unacked")
	require.Equal(t, 0x7fffffff, u32(76), "tcpi_snd_ssthresh")
	require.Equal(t, 10, u32(80), "tcpi_snd_cwnd")
	require.Equal(t, 1460, u32(84), "tcpi_advmss")
	require.Equal(t, 3, u32(88), "tcpi_reordering")
	require.Equal(t, 60000, u32(228), "tcpi_snd_wnd")
	n, r = p.h.Getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_CC_INFO, b)
	require.Equal(t, [2]int{0, 0}, [2]int{n, r})
	queued, r := p.h.Ioctl(fd, unix.SIOCOUTQ)
	require.Equal(t, [2]int{3000, 0}, [2]int{queued, r})
}

// Options go the whole way to the stack and back.
func TestOptions(t *testing.T) {
	p := newPeer(t, "")
	fd := p.accepted()
	four := func(n int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
	for _, o := range []struct{ level, name, set, get int }{
		{unix.SOL_SOCKET, unix.SO_SNDBUF, 21000, 42000}, {unix.SOL_SOCKET, unix.SO_RCVBUF, 70000, 140000},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, 1},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, 1}, {unix.IPPROTO_TCP, unix.TCP_CORK, 1, 1},
		{unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1, 1}, {unix.IPPROTO_TCP, unix.TCP_MAXSEG, 500, 500},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 3000, 3000}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60, 60},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5, 5}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4, 4},
		{unix.IPPROTO_IP, unix.IP_TOS, 16, 16}, {unix.IPPROTO_IP, unix.IP_TTL, 9, 9},
	} {
		require.Zero(t, p.h.Setsockopt(fd, o.level, o.name, four(o.set)), "%+v", o)
		b := make([]byte, 4)
		n, r := p.h.Getsockopt(fd, o.level, o.name, b)
		require.Equal(t, [2]int{4, 0}, [2]int{n, r}, "%+v", o)
		require.Equal(t, o.get, int(binary.NativeEndian.Uint32(b)), "%+v", o)
	}
	require.Zero(t, p.h.Setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, []byte("reno")))
	b := make([]byte, 16)
	_, r := p.h.Getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, b)
	require.Zero(t, r)
	require.Equal(t, "newreno", string(b[:7]))
	require.Equal(t, -int(unix.ENOPROTOOPT), p.h.Setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, four(1)))
	require.Equal(t, -int(unix.EBADF), p.h.Setsockopt(12345, unix.IPPROTO_TCP, unix.TCP_NODELAY, four(1)))
	require.Zero(t, p.h.Setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, append(four(1), four(0)...)))
	require.Zero(t, p.h.Close(fd))
	p.leaves(wire.RST|wire.ACK, 0)
}

// The settings of net.ipv4 are read when the first socket is made, and those of the flags have precedence.
func TestSettings(t *testing.T) {
	const words = "local=10.0.0.1/8 gateway=10.0.0.2 mtu=1400 tcp_ecn=1 tcp_rmem=4096,100000,200000 proc="
	cfg, err := ParseFlags(words + t.TempDir())
	require.NoError(t, err)
	require.Equal(t, netip.MustParsePrefix("10.0.0.1/8"), cfg.Local)
	require.Equal(t, 1400, cfg.MTU)
	for name, value := range map[string]string{
		"tcp_ecn": "0\n", "tcp_sack": "0\n", "tcp_wmem": "4096\t16384\t4194304\n", "tcp_keepalive_time": "77\n",
		"tcp_congestion_control": "reno\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(cfg.Proc, name), []byte(value), 0o600))
	}
	c, err := cfg.tcpConfig()
	require.NoError(t, err)
	require.Equal(t, tcp.ECNOn, c.ECN)
	require.False(t, c.SACK)
	require.Equal(t, [2]int{100000, 200000}, [2]int{c.ReceiveBuffer, c.ReceiveBufferMax})
	require.Equal(t, [2]int{16384, 4194304}, [2]int{c.SendBuffer, c.SendBufferMax})
	require.Equal(t, 77*time.Second, c.KeepAliveIdle)
	require.Equal(t, "newreno", c.Congestion)

	require.NoError(t, os.WriteFile(filepath.Join(cfg.Proc, "tcp_sack"), []byte("yes"), 0o600))
	_, err = cfg.tcpConfig()
	require.ErrorContains(t, err, "tcp_sack")
	for _, bad := range []string{"local", "local=x", "mtu=x", "gateway=", "speed=1"} {
		_, err := ParseFlags(bad)
		require.Error(t, err, bad)
	}
}
