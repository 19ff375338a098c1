package bench

import (
	"fmt"
	"net/netip"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/bench/child"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// kit with datagrams in its three ways to receive them, and with TCP as a net.Listener, all as a user gets them by default.

// openCard opens the task's card, with the kernel's addresses or with owned ones.
func openCard(t task, owned ...netip.Prefix) (*kit.Kit, error) {
	return kit.Open(kit.Config{Interface: t.Interface, Attach: loader.AttachNative, Addresses: owned})
}

// serveKitStream serves TCP through kit's net.Listener.
func serveKitStream(t task, c *counters, ready func()) error {
	k, err := openCard(t)
	if err != nil {
		return err
	}
	ln, err := k.Net().Listen("tcp4", t.Address.String())
	if err != nil {
		return err
	}
	return child.ServeStream(ln, t, c, ready)
}

// openKit opens the task's card and a socket bound to its address.
func openKit(t task) (*kit.Kit, kit.Token, error) {
	k, err := openCard(t)
	if err != nil {
		return nil, 0, err
	}
	s, err := bindKit(k, t.Address)
	return k, s, err
}

func bindKit(k *kit.Kit, at netip.AddrPort) (kit.Token, error) {
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	if err := k.Bind(s, &at); err != nil {
		return 0, fmt.Errorf("bind to %s: %w", at, err)
	}
	return s, nil
}

// serveKitHandler takes and answers datagrams on the engine.
func serveKitHandler(t task, c *counters, ready func()) error {
	switch t.Role {
	case Sockets, SocketsEcho:
		return serveKitSockets(t, c, ready)
	case Scaling:
		return serveKitScaling(t, c, ready)
	}
	k, s, err := openKit(t)
	if err != nil {
		return err
	}
	if err := k.Handle(s, countOrEcho(t.Role == Echo, c)); err != nil {
		return err
	}
	ready()
	select {}
}

// countOrEcho is a handler that counts and, where it shall, answers.
func countOrEcho(echo bool, c *counters) stack.Handler {
	// One engine, one queue: plain additions that are published.
	var received, sent uint64
	if !echo {
		return func(*kit.Packet) {
			received++
			c.Received.Store(received)
		}
	}
	return func(p *kit.Packet) {
		received++
		c.Received.Store(received)
		p.Echo()
		sent++
		c.Sent.Store(sent)
	}
}

// serveKitBatch takes, answers or sends batches.
func serveKitBatch(t task, c *counters, ready func()) error {
	if t.Role == SocketsTransmit {
		return transmitKitSockets(t, c, ready)
	}
	k, s, err := openKit(t)
	if err != nil {
		return err
	}
	if t.Role == Transmit {
		return transmitKitBatch(k, s, t, c, ready)
	}
	messages := make([]kit.Message, kernelBatch)
	buffers := make([][]byte, kernelBatch)
	for i := range messages {
		buffers[i] = make([]byte, kernelLongest)
		messages[i].Buf = buffers[i]
	}
	ready()
	for {
		n, err := k.ReadBatch(s, messages, 0)
		if err != nil {
			return err
		}
		c.Received.Add(uint64(n))
		if t.Role != Echo {
			continue
		}
		for i := range messages[:n] {
			m := &messages[i]
			m.Buf, m.TTL, m.TOS = m.Buf[:m.N], 0, 0
		}
		sent, err := k.WriteBatch(s, messages[:n], 0)
		if err != nil {
			return err
		}
		c.Sent.Add(uint64(sent))
		for i := range messages[:n] {
			messages[i].Buf = buffers[i]
		}
	}
}

// serveKitCalls takes, answers or sends one datagram at a time by RecvFrom and SendTo.
func serveKitCalls(t task, c *counters, ready func()) error {
	k, s, err := openKit(t)
	if err != nil {
		return err
	}
	if t.Role == Transmit {
		return transmitKitCalls(k, s, t, c, ready)
	}
	b := make([]byte, kernelLongest)
	ready()
	for {
		n, from, err := k.RecvFrom(s, b, 0)
		if err != nil {
			return err
		}
		c.Received.Add(1)
		if t.Role != Echo {
			continue
		}
		if _, err := k.SendTo(s, b[:n], 0, from); err != nil {
			return err
		}
		c.Sent.Add(1)
	}
}
