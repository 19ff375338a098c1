package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Load of the clients.
const (
	window   = 64 // datagrams outstanding
	payload  = 64 // bytes
	patience = 200 * time.Millisecond
)

// figures are what a server's clients saw.
type figures struct {
	many, one sample
}

// sample is what one kind of load came to.
type sample struct {
	replies uint64
	lost    uint64
	elapsed time.Duration
	times   []time.Duration // round trips
}

// merge adds another round.
func (s *sample) merge(o sample) {
	s.replies += o.replies
	s.lost += o.lost
	s.elapsed += o.elapsed
	s.times = append(s.times, o.times...)
}

func (s *sample) rate() float64 { return float64(s.replies) / s.elapsed.Seconds() }

// quantile is the round trip that a share q of all did not exceed; the times must
// be sorted.
func (s *sample) quantile(q float64) time.Duration {
	if len(s.times) == 0 {
		return 0
	}
	return s.times[min(int(q*float64(len(s.times))), len(s.times)-1)]
}

// progress is what a load has done so far, for who looks on.
type progress struct{ replies, lost atomic.Uint64 }

// load runs both kinds of load against port 7 and shows them live.
func (s *show) load(ctx context.Context, name string, f *figures, d *kitd) error {
	kinds := []struct {
		title string
		run   func(context.Context, *net.UDPConn, *progress) (sample, error)
		into  *sample
	}{
		{fmt.Sprintf("%d at a time", window), flood, &f.many},
		{"one at a time", pingPong, &f.one},
	}
	for _, k := range kinds {
		conn, err := s.lab.Right.Dial(ctx, "udp", netip.AddrPortFrom(s.address, echoPort).String())
		if err != nil {
			return err
		}
		var p progress
		shown, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.watch(shown, name+", "+k.title, &p, d)
		}()
		got, err := k.run(ctx, conn.(*net.UDPConn), &p)
		cancel()
		<-done
		conn.Close()
		if err != nil {
			return fmt.Errorf("the UDP load against %s failed: %w", name, err)
		}
		if got.replies == 0 {
			return fmt.Errorf("%s answered none of the datagrams of the UDP load", name)
		}
		k.into.merge(got)
		slices.Sort(got.times)
		s.screen.done("%-6s %-14s %9s replies/s   p50 %6s   p99 %6s   lost %d", name, k.title,
			grouped(uint64(got.rate())), micros(got.quantile(0.5)), micros(got.quantile(0.99)), got.lost)
	}
	return nil
}

// loadKernel runs the same loads against the kernel.
func (s *show) loadKernel(ctx context.Context) error {
	server, err := s.startKernelEcho()
	if err != nil {
		return err
	}
	defer server.stop()
	if err := server.await(ctx, "ready"); err != nil {
		return err
	}
	return s.load(ctx, "kernel", &s.kernel, nil)
}

// asked is one datagram that is on its way.
type asked struct {
	number uint64
	at     time.Time
}

// flood keeps window datagrams outstanding, by recvmmsg and sendmmsg.
func flood(ctx context.Context, conn *net.UDPConn, p *progress) (s sample, err error) {
	batches := ipv4.NewPacketConn(conn)
	in, out := make([]ipv4.Message, window), make([]ipv4.Message, window)
	for i := range window {
		in[i].Buffers = [][]byte{make([]byte, payload)}
		out[i].Buffers = [][]byte{make([]byte, payload)}
	}
	var outstanding [window]asked
	var number uint64
	free := make([]int, window) // slots to send
	for i := range free {
		free[i] = i
	}
	s.times = make([]time.Duration, 0, 1<<20)
	start := time.Now()
	for now := start; now.Sub(start) < loadTime && ctx.Err() == nil; now = time.Now() {
		for i, slot := range free {
			number++
			outstanding[slot] = asked{number, now}
			b := out[i].Buffers[0]
			binary.BigEndian.PutUint64(b, number)
			binary.BigEndian.PutUint64(b[8:], uint64(slot))
		}
		if err := writeAll(batches, out[:len(free)]); err != nil {
			return s, err
		}
		free = free[:0]
		_ = conn.SetReadDeadline(now.Add(patience))
		n, err := batches.ReadBatch(in, unix.MSG_WAITFORONE)
		if err != nil && !passing(err) {
			return s, err
		}
		now = time.Now()
		for _, m := range in[:max(n, 0)] {
			slot := int(binary.BigEndian.Uint64(m.Buffers[0][8:]))
			if m.N != payload || slot >= window || outstanding[slot].number != binary.BigEndian.Uint64(m.Buffers[0]) {
				continue // an answer that was given up
			}
			s.times = append(s.times, now.Sub(outstanding[slot].at))
			outstanding[slot] = asked{}
			free = append(free, slot)
		}
		s.replies += uint64(len(free))
		for slot, a := range outstanding {
			if a.number != 0 && now.Sub(a.at) > patience {
				s.lost++
				outstanding[slot] = asked{}
				free = append(free, slot)
			}
		}
		p.replies.Store(s.replies)
		p.lost.Store(s.lost)
	}
	s.elapsed = time.Since(start)
	return s, ctx.Err()
}

func writeAll(conn *ipv4.PacketConn, messages []ipv4.Message) error {
	for len(messages) > 0 {
		n, err := conn.WriteBatch(messages, 0)
		if err != nil {
			if passing(err) {
				return nil
			}
			return err
		}
		messages = messages[n:]
	}
	return nil
}

// passing reports whether an error is one that a lost datagram explains.
func passing(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOBUFS)
}

// pingPong has one datagram outstanding.
func pingPong(ctx context.Context, conn *net.UDPConn, p *progress) (s sample, err error) {
	out, in := make([]byte, payload), make([]byte, payload)
	s.times = make([]time.Duration, 0, 1<<18)
	start := time.Now()
	var number uint64
	for at := start; at.Sub(start) < oneTime && ctx.Err() == nil; at = time.Now() {
		number++
		binary.BigEndian.PutUint64(out, number)
		if _, err := conn.Write(out); err != nil && !passing(err) {
			return s, err
		}
		if number%64 == 1 { // a deadline costs as much as a datagram, and may be late
			_ = conn.SetReadDeadline(at.Add(2 * patience))
		}
		for {
			n, err := conn.Read(in)
			if err != nil {
				if !passing(err) {
					return s, err
				}
				s.lost++
				break
			}
			if n == payload && binary.BigEndian.Uint64(in) == number {
				s.times = append(s.times, time.Since(at))
				s.replies++
				break
			}
		}
		p.replies.Store(s.replies)
		p.lost.Store(s.lost)
	}
	s.elapsed = time.Since(start)
	return s, ctx.Err()
}
