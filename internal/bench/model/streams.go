package model

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/wire"
)

const (
	// streamBuffer is a connection's send and receive buffer: enough for what is on its way between two rounds.
	streamBuffer = 64 << 10
	// fullSegment is more than any frame has that is no full segment.
	fullSegment = 1000
	// warmRounds let windows, rings and tables have their size, those between engines too.
	warmRounds = 150
)

// cable is a client with one queue, and the server's card, which spreads the client's connections over its queues by their source port.
type cable struct {
	server, client *host
	home           []int // by source port, from firstPort on
	full           int   // segments that the client has sent
	accepted       []*stack.Stream
	dialled        []*stack.Stream
	chunk, buffer  []byte
}

func streams(c *Case, server *host, rng *rand.Rand, r *Result) error {
	client, err := newHost(clientAddr, clientMAC, 1, segmentBatch*c.Load, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	w := &cable{server: server, client: client, chunk: make([]byte, 4*1448), buffer: make([]byte, streamBuffer)}
	for range connections * c.Load {
		w.home = append(w.home, rng.IntN(c.Engines))
	}
	client.queues[0].carry = w.toServer
	for _, q := range server.queues {
		q.carry = client.queues[0].arrive
	}
	if err := w.connect(); err != nil {
		return err
	}
	if c.Astray {
		for flow := range w.home {
			w.home[flow] = (w.home[flow] + 1 + flow%(c.Engines-1)) % c.Engines
		}
	}
	for range warmRounds {
		if err := w.round(); err != nil {
			return err
		}
	}
	before := server.begin()
	w.full = 0
	for want := c.Packets * c.Load; w.full < want; {
		full := w.full
		if err := w.round(); err != nil {
			return err
		}
		if w.full == full {
			return errors.New("model: no segment moves")
		}
	}
	r.Packets = uint64(w.full)
	return server.end(before, r)
}

// toServer takes a frame from the client to the queue that the card chooses.
func (w *cable) toServer(frame []byte) {
	queue := 0
	ip := wire.IPv4(frame[wire.EthernetLen:])
	if len(frame) > wire.EthernetLen+wire.IPv4Len+wire.TCPLen && ip.Protocol() == wire.ProtocolTCP {
		if at := int(wire.TCP(ip.Payload()).SrcPort()) - firstPort; at >= 0 && at < len(w.home) {
			queue = w.home[at]
		}
		if len(frame) > fullSegment {
			w.full++
		}
	}
	w.server.queues[queue].arrive(frame)
}

// exchange lets both hosts do what there is to do, and then puts what they sent on the wire.
func (w *cable) exchange(later time.Duration) {
	for _, h := range []*host{w.client, w.server} {
		h.now = h.now.Add(later)
		h.step()
		for _, q := range h.queues {
			q.deliver()
		}
	}
}

// round lets the client write and the server's users read.
func (w *cable) round() error {
	for _, s := range w.dialled {
		if s.Unacknowledged() <= streamBuffer/2 {
			if _, err := s.Write(w.chunk); err != nil && !errors.Is(err, syscall.EAGAIN) {
				return err
			}
		}
	}
	w.exchange(roundTime)
	for _, s := range w.accepted {
		if _, err := s.Read(w.buffer); err != nil && !errors.Is(err, syscall.EAGAIN) {
			return err
		}
	}
	return nil
}

// connect makes the connections, a few at a time.
func (w *cable) connect() error {
	for range 100 { // the addresses are probed for, RFC 5227
		w.exchange(100 * time.Millisecond)
	}
	listener := w.server.NewStream()
	at := netip.AddrPortFrom(serverAddr, port)
	if err := errors.Join(listener.SetReceiveBuffer(streamBuffer), listener.Bind(at), listener.Listen(stack.ListenConfig{Backlog: 1024})); err != nil {
		return err
	}
	for n := range w.home {
		s := w.client.NewStream()
		err := errors.Join(s.SetSendBuffer(streamBuffer), s.Bind(netip.AddrPortFrom(clientAddr, uint16(firstPort+n))))
		if err == nil {
			err = s.Connect(at)
		}
		if err != nil && !errors.Is(err, syscall.EINPROGRESS) {
			return err
		}
		w.dialled = append(w.dialled, s)
		for try := 0; ; try++ {
			w.exchange(roundTime)
			a, err := listener.Accept()
			if err == nil {
				w.accepted = append(w.accepted, a)
				break
			}
			if try == 100 || !errors.Is(err, syscall.EAGAIN) {
				return fmt.Errorf("model: accept connection %d: %w", n, err)
			}
		}
	}
	return nil
}
