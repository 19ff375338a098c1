package kittest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack/linktest"
)

// raw is all frames that come to an end of a cable, and a way to send some (packet(7)).
type raw struct{ *os.File }

// openRaw opens an end of a cable.
func openRaw(n *netlab.Namespace, e *netlab.End) (r raw, err error) {
	err = n.Do(func() error {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: e.Index}),
		)
		if err != nil {
			return errors.Join(fmt.Errorf("raw socket on %s: %w", e.Interface, err), unix.Close(fd))
		}
		r.File = os.NewFile(uintptr(fd), e.Interface)
		return nil
	})
	return r, err
}

func (r raw) send(frame []byte) error {
	_, err := r.Write(frame)
	return err
}

func (r raw) next(limit time.Duration) ([]byte, error) {
	if err := r.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	b := make([]byte, 1<<16)
	n, err := r.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	return b[:n], err
}

func (r raw) wait(d time.Duration) { time.Sleep(d) }

// relay joins the two ends of a namespace by a wire with a path's faults, until the test ends.
func relay(t testing.TB, n *netlab.Namespace, cfg PairConfig) (*linktest.Wire, error) {
	w := linktest.New(linktest.Config{Seed: cfg.Path.Seed, RealTime: true, Ring: 4096, Ends: []linktest.EndConfig{
		{MTU: cfg.MTU, Faults: cfg.Path.Out}, {MTU: cfg.MTU, Faults: cfg.Path.Back},
	}})
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // behind the others, which run first
	for i, e := range n.Ends {
		s, err := openRaw(n, e)
		if err != nil {
			return nil, err
		}
		end := w.End(i)
		t.Cleanup(func() {
			_ = s.Close()
			end.Fail(errClosed)
		})
		running.Go(func() {
			b := make([]byte, 1<<16)
			for {
				n, err := s.Read(b)
				if err != nil {
					return
				}
				end.Inject(b[:n])
			}
		})
		running.Go(func() {
			for end.Wait(-1) == nil {
				// What the kernel has no room for is lost, as on any wire.
				end.Poll(64, func(f []byte) { _ = s.send(f) })
			}
		})
	}
	return w, nil
}
