package stack

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/instructions"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/wire"
)

// A crowd is many clients of a quiet host, played as cheaply as can be, so that what is measured is the host.
type crowd struct {
	*quiet
	t       testing.TB
	frame   []byte
	lends   [1][]byte
	buf     [100]byte
	clients []client
	talking int    // the client to whom the host speaks
	to      uint16 // the host's port
	streams []*Stream
	l       *Stream
	meter   *instructions.Meter // measures the host, and not its clients, where there is one
}

type client struct {
	addr     wire.Addr
	port     uint16
	nxt, rcv wire.Seq
}

func newCrowd(t testing.TB) *crowd {
	q := newQuiet(t)
	q.iface.SetNeighbour(entry(gatewayIP, peerMAC, NeighbourPermanent))
	c := &crowd{quiet: q, t: t, frame: make([]byte, 2048), to: 80}
	c.link.Heard = func(f []byte) {
		t := sent(f).tcp()
		k := &c.clients[c.talking]
		if end := t.Seq().Add(t.Len()); t.Flags()&(wire.SYN|wire.RST) != 0 || end.After(k.rcv) {
			k.rcv = end
		}
	}
	c.l = q.NewStream()
	require.NoError(t, c.l.Bind(ap(hostIP+":80")))
	require.NoError(t, c.l.Listen(ListenConfig{Backlog: 1000}))
	return c
}

// sends has a client send a segment, and lets the host answer it.
func (c *crowd) sends(n int, flags wire.TCPFlags, payload []byte) {
	c.talking = n
	k := &c.clients[n]
	total := wire.EthernetLen + wire.IPv4Len + wire.TCPLen + len(payload)
	b := c.frame[:total]
	wire.PutEthernet(b, &wire.EthernetInfo{Dst: hostMAC, Src: peerMAC, Type: wire.EtherTypeIPv4})
	ip := b[wire.EthernetLen:]
	wire.PutIPv4(ip, &wire.IPv4Fields{TotalLength: len(ip), DF: true, TTL: 64, Protocol: wire.ProtocolTCP, Src: k.addr, Dst: addr(hostIP)})
	seg := ip[wire.IPv4Len:]
	copy(seg[wire.TCPLen:], payload)
	f := wire.TCPFields{
		Src: k.addr, Dst: addr(hostIP), SrcPort: k.port, DstPort: c.to, Seq: k.nxt, Flags: flags, Window: 65535, PayloadLen: len(payload),
	}
	if flags&wire.ACK != 0 {
		f.Ack = k.rcv
	}
	wire.PutTCP(seg, &f, wire.Sum(payload, 0))
	k.nxt = k.nxt.Add(len(payload))
	if flags&(wire.SYN|wire.FIN) != 0 {
		k.nxt++
	}
	c.lends[0] = b
	c.link.Lend(0, c.lends[:]...)
	c.measured(func() { c.step(1) })
}

// measured does something of the host's.
func (c *crowd) measured(f func()) {
	if c.meter != nil {
		c.meter.Start()
		defer c.meter.Stop()
	}
	f()
}

// grow makes more connections: the handshake is done, bytes went both ways, and nothing is on its way.
func (c *crowd) grow(count int) {
	hello, buf := []byte("hello, how"), make([]byte, 16)
	for i := range count {
		if i%1000 == 999 {
			c.rest() // or they would all have rings at the same time
		}
		n := len(c.clients)
		c.clients = append(c.clients, client{addr: addr("192.0.2.1") + wire.Addr(n%200), port: uint16(1024 + n/200), nxt: wire.Seq(n)})
		c.sends(n, wire.SYN, nil)
		c.sends(n, wire.ACK, nil)
		s, err := c.l.Accept()
		require.NoError(c.t, err)
		c.streams = append(c.streams, s)
		c.sends(n, wire.ACK|wire.PSH, hello)
		got, err := s.Read(buf)
		require.NoError(c.t, err)
		got, err = s.Write(buf[:got])
		require.NoError(c.t, err)
		require.Equal(c.t, len(hello), got)
		c.step(0)
		c.sends(n, wire.ACK, nil)
	}
}

// rest lets so much time pass that rings give their memory back.
func (c *crowd) rest() {
	for until := c.now.Add(5 * time.Second); ; {
		next := c.e.Step(c.now)
		if next == clock.Never || next > until {
			return
		}
		c.now = max(c.now, next)
	}
}

// design.md: memory for an idle connection is small, and an engine that has many of them is no slower.
func TestIdleConnectionsAreCheap(t *testing.T) {
	count := 200_000
	if testing.Short() || raced {
		count = 20_000
	}
	c := newCrowd(t)
	c.grow(10)
	c.rest()
	idle, busy := c.cost()
	c.clients = append(make([]client, 0, count+10), c.clients...) // the script's own is made before
	c.streams = append(make([]*Stream, 0, count+10), c.streams...)
	before := heap()
	c.grow(count)
	c.rest()
	each := float64(heap()-before) / float64(count)
	t.Logf("%.0f bytes for each of %d connections", each, count)
	require.Less(t, each, 2048.0)
	require.Zero(t, c.e.wheel.count, "no timer runs for any")
	for _, s := range c.streams[:100] {
		wantNoMemory(t, s)
	}
	idleMany, busyMany := c.cost()
	t.Logf("a step without work: %v, before %v; one with a segment: %v, before %v", idleMany, idle, busyMany, busy)
	require.Less(t, idleMany, 2*idle+200*time.Nanosecond)
	require.Less(t, busyMany, 3*busy+time.Microsecond)
	require.Equal(t, uint64(0), c.Stats().TxDrops[DropTransmitFull])
	runtime.KeepAlive(c)
}

// cost measures a step without work, and one that takes a segment for a connection and answers it: the least of many, as others
// use the machine too.
func (c *crowd) cost() (idle, busy time.Duration) {
	const steps = 200
	idle, busy = time.Hour, time.Hour
	buf := make([]byte, 16)
	for range 50 {
		began := time.Now()
		for range steps {
			c.step(0)
		}
		idle = min(idle, time.Since(began)/steps)
		began = time.Now()
		for n := range 10 {
			c.sends(n, wire.ACK|wire.PSH, []byte("a few bytes"))
			_, err := c.streams[n].Read(buf)
			require.NoError(c.t, err)
		}
		busy = min(busy, time.Since(began)/10)
	}
	return idle, busy
}
