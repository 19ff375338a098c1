package tests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/tcp"
)

// patience bounds what must come to pass. It is long because only a failure takes that long.
const patience = 2 * time.Minute

// seeded is n bytes that follow from a seed, and their sum.
func seeded(n int, seed uint64) ([]byte, [32]byte) {
	b := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b, sha256.Sum256(b)
}

// exchangeStreams sends bytes both ways over two ends of one connection at once, closes each direction, and wants the same at
// the other end.
func exchangeStreams(t *testing.T, a, b net.Conn, size int) {
	t.Helper()
	var both sync.WaitGroup
	errs := make(chan error, 4)
	send := func(c net.Conn, seed uint64) {
		defer both.Done()
		content, _ := seeded(size, seed)
		_, err := c.Write(content)
		errs <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
	}
	receive := func(c net.Conn, seed uint64) {
		defer both.Done()
		_, want := seeded(size, seed)
		got := sha256.New()
		n, err := io.Copy(got, c)
		if err == nil && (n != int64(size) || [32]byte(got.Sum(nil)) != want) {
			err = fmt.Errorf("%d bytes of %d came, or not the same", n, size)
		}
		errs <- err
	}
	for _, c := range []net.Conn{a, b} {
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	}
	both.Add(4)
	go send(a, 1)
	go receive(b, 1)
	go send(b, 2)
	go receive(a, 2)
	both.Wait()
	for range 4 {
		require.NoError(t, <-errs)
	}
}

// kernelAndKit makes a connection between the left kernel and a kit's Net, dialled by either.
func kernelAndKit(t *testing.T, lab *netlab.Lab, n *socketapi.Net, local netip.Addr, kitDials bool) (kernel, kits net.Conn) {
	t.Helper()
	var l net.Listener
	var err error
	if kitDials {
		l, err = lab.Left.Listen("tcp4", netip4(lab.Left.Addr(), 0))
	} else {
		l, err = n.Listen("tcp4", netip4(local, 0))
	}
	require.NoError(t, err)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
		close(accepted)
	}()
	var dialled net.Conn
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if kitDials {
		dialled, err = n.DialContext(ctx, "tcp4", l.Addr().String())
	} else {
		dialled, err = lab.Left.Dial(ctx, "tcp4", l.Addr().String())
	}
	require.NoError(t, err)
	other := <-accepted
	require.NotNil(t, other)
	if kitDials {
		return other, dialled
	}
	return dialled, other
}

// TCP with the kernel at the other end of a veth pair: every byte arrives, both ways at once, whoever dialled, in both modes, also
// while packets are lost and duplicated.
func TestTCPWithKernel(t *testing.T) {
	for _, loss := range []uint32{0, 100, 500} { // of 10,000
		for _, owned := range []bool{false, true} {
			for _, kitDials := range []bool{false, true} {
				t.Run(fmt.Sprintf("loss %v%%, owned %v, kit dials %v", float64(loss)/100, owned, kitDials), func(t *testing.T) {
					t.Parallel()
					lab := netlab.Test(t, netlab.Options{})
					cfg, local := kit.Config{}, lab.Right.Addr()
					if owned {
						cfg.Addresses, local = []netip.Prefix{ownedAddr}, ownedAddr.Addr()
					}
					k := open(t, lab, cfg)
					size := 16 << 20
					if loss > 0 {
						size = 2 << 20
						in, err := lab.Left.Loss(loss, loss/4, 1)
						require.NoError(t, err)
						defer func() { require.NoError(t, in.Close()) }()
						out, err := lab.Left.LossOut(loss, loss/4, 2)
						require.NoError(t, err)
						defer func() { require.NoError(t, out.Close()) }()
					}
					kernel, kits := kernelAndKit(t, lab, k.Net(), local, kitDials)
					defer kernel.Close()
					defer kits.Close()
					exchangeStreams(t, kernel, kits, size)
					if s := k.Stack().TCPStats(); loss > 0 {
						require.NotZero(t, s.RetransmittedSegments)
					} else {
						require.Zero(t, s.Timeouts)
					}
				})
			}
		}
	}
}

// faultyNet is kit's stack on the right end behind a link with faults, with ownedAddr.
func faultyNet(t *testing.T, lab *netlab.Lab, faults linktest.Faults) *stack.Stack {
	t.Helper()
	var device *loader.Device
	require.NoError(t, lab.Right.Do(func() (err error) {
		device, err = loader.Open(loader.Config{Interface: lab.Right.Interface()})
		return err
	}))
	s := stack.New(stack.Config{Seed: 1})
	_, err := s.AddInterface(stack.InterfaceConfig{
		Name: lab.Right.Interface(), Mode: stack.Owned, Addresses: []netip.Prefix{ownedAddr},
		Links: []stack.Link{linktest.NewFault(device.Links()[0], linktest.FaultConfig{Seed: 7, In: faults, Out: faults})},
	})
	require.NoError(t, err)
	require.NoError(t, device.Tables().SetAddress(ownedAddr.Addr(), bpf.Owned))
	s.Start()
	require.NoError(t, device.Tables().SetEnabled(true))
	t.Cleanup(func() {
		stats := s.Stats()
		require.NoError(t, s.Close())
		require.NoError(t, device.Close())
		requireSums(t, stats)
	})
	return s
}

// Reordering, delay, duplication and damage on top of loss do not harm a byte either.
func TestTCPWithKernelOverFaultyLink(t *testing.T) {
	for name, faults := range map[string]linktest.Faults{
		"reordering": {Latency: time.Millisecond, Jitter: 200 * time.Microsecond, Reorder: 0.02, ReorderDelay: 3 * time.Millisecond},
		"damage":     {Loss: 0.01, Duplicate: 0.01, Corrupt: 0.01, Truncate: 0.002},
		"long thin":  {Latency: 20 * time.Millisecond, Bandwidth: 50e6, Queue: 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.Test(t, netlab.Options{})
			s := faultyNet(t, lab, faults)
			kernel, kits := kernelAndKit(t, lab, socketapi.NewNet(s), ownedAddr.Addr(), false)
			defer kernel.Close()
			defer kits.Close()
			exchangeStreams(t, kernel, kits, 2<<20)
		})
	}
}

// Connections that end in any way, at any moment, on either side, leave nothing behind.
func TestTCPRandomEnds(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	l, err := k.Net().Listen("tcp4", netip4(ownedAddr.Addr(), 80))
	require.NoError(t, err)
	var served sync.WaitGroup
	served.Go(func() {
		for n := uint64(0); ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { endAtRandom(c.(lingerer), rand.New(rand.NewPCG(n, 1))) })
		}
	})
	var clients sync.WaitGroup
	for worker := range uint64(8) {
		clients.Go(func() {
			for n := range uint64(40) {
				c, err := lab.Left.Dial(t.Context(), "tcp4", l.Addr().String())
				if errors.Is(err, syscall.ECONNRESET) {
					continue // accepted, and ended by a reset before Dial had returned
				}
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				endAtRandom(c.(*net.TCPConn), rand.New(rand.NewPCG(n, 2+worker)))
			}
		})
	}
	clients.Wait()
	require.NoError(t, l.Close())
	served.Wait()
	require.Eventually(t, func() bool {
		for _, s := range k.Stack().Sockets() {
			if s.State != "TIME-WAIT" && s.State != "FIN-WAIT-2" {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "%v", k.Stack().Sockets())
}

// lingerer is what *net.TCPConn and kit's have in common here.
type lingerer interface {
	net.Conn
	CloseWrite() error
	SetLinger(int) error
}

// endAtRandom reads and writes a little, and then ends the connection in one way or another.
func endAtRandom(c lingerer, r *rand.Rand) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	b := make([]byte, 1+r.IntN(50_000))
	for range r.IntN(4) {
		if _, err := c.Write(b); err != nil || r.IntN(2) == 0 {
			break
		}
		if _, err := c.Read(b); err != nil {
			return
		}
	}
	switch r.IntN(4) {
	case 0:
		_ = c.SetLinger(0)
	case 1:
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	case 2:
		_ = c.CloseWrite()
	}
}

// A router in between has a link with a smaller MTU on its far side: what kit sends too long comes back as an ICMP error
// (RFC 1191), and every byte arrives all the same.
func TestTCPPathMTU(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	far, err := lab.AddNamespace("far")
	require.NoError(t, err)
	router, end, err := lab.Connect(lab.Left, far, netlab.Options{MTU: 1300})
	require.NoError(t, err)
	require.NoError(t, lab.Left.Sysctl("net/ipv4/ip_forward", "1"))
	out, err := far.Run(t.Context(), "ip", "route", "add", "default", "via", router.Addr().String(), "advmss", "1460")
	require.NoError(t, err, "%s", out)
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}, Gateway: lab.Left.Addr()})
	l, err := far.Listen("tcp4", netip4(end.Addr(), 0))
	require.NoError(t, err)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	kits, err := k.Net().DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
	require.NoError(t, err)
	defer kits.Close()
	kernel := <-accepted
	require.NotNil(t, kernel)
	defer kernel.Close()
	before, ok := kits.Stream().Info()
	require.True(t, ok)
	require.Equal(t, 1500, before.MTU)
	content, want := seeded(1<<20, 1)
	go func() {
		_, _ = kits.Write(content)
		_ = kits.CloseWrite()
	}()
	got := sha256.New()
	_, err = io.Copy(got, kernel)
	require.NoError(t, err)
	require.Equal(t, want, [32]byte(got.Sum(nil)))
	after, ok := kits.Stream().Info()
	require.True(t, ok)
	require.Equal(t, 1300, after.MTU)
	require.Zero(t, k.Stack().TCPStats().Timeouts, "nobody had to wait for a black hole to be found")
}

// A peer that does not read for a minute closes its window, and the connection survives that (RFC 9293 §3.8.6.1).
func TestTCPWindowClosedForAMinute(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	kernel, kits := kernelAndKit(t, lab, k.Net(), ownedAddr.Addr(), false)
	defer kernel.Close()
	defer kits.Close()
	content, want := seeded(16<<20, 3)
	wrote := make(chan error, 1)
	go func() {
		_, err := kits.Write(content)
		wrote <- errors.Join(err, kits.(*socketapi.TCPConn).CloseWrite())
	}()
	closed := func() bool {
		i, ok := kits.(*socketapi.TCPConn).Stream().Info()
		return ok && i.SendWindow < 1460 && i.Unsent > 0
	}
	require.Eventually(t, closed, patience, 10*time.Millisecond, "the peer's window closes")
	select {
	case err := <-wrote:
		require.Fail(t, "the peer has read nothing, and yet all is written", "%v", err)
	case <-time.After(time.Minute):
	}
	require.True(t, closed(), "the window is still closed")
	got := sha256.New()
	_, err := io.Copy(got, kernel)
	require.NoError(t, err)
	require.Equal(t, want, [32]byte(got.Sum(nil)))
	require.NoError(t, <-wrote)
}

// A peer whose process is killed resets or ends the connection; one whose machine has gone silent times out.
func TestTCPPeerDies(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	l, err := k.Net().ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ownedAddr.Addr(), 80)))
	require.NoError(t, err)
	defer l.Close()
	accept := func() *socketapi.TCPConn {
		require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
		c, err := l.AcceptTCP()
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		return c
	}
	script := filepath.Join(t.TempDir(), "peer.sh")
	require.NoError(t, os.WriteFile(script, []byte(fmt.Sprintf("exec 3<>/dev/tcp/%s/80\necho hello >&3\nread -r line\n", ownedAddr.Addr())), 0o600))
	peer := func() *exec.Cmd {
		cmd := exec.Command("bash", script)
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
		require.NoError(t, lab.Left.Start(cmd))
		return cmd
	}
	hello := make([]byte, 6)

	t.Run("killed", func(t *testing.T) {
		cmd := peer()
		c := accept()
		defer c.Close()
		_, err := io.ReadFull(c, hello)
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Kill())
		_, err = c.Read(hello)
		require.Equal(t, io.EOF, err)
		for err = nil; err == nil; _, err = c.Write(hello) {
		}
		require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE), "%v", err)
	})
	t.Run("silent", func(t *testing.T) {
		peer()
		c := accept()
		defer c.Close()
		_, err := io.ReadFull(c, hello)
		require.NoError(t, err)
		require.NoError(t, c.Stream().SetUserTimeout(2*time.Second))
		loss, err := lab.Left.Loss(10_000, 0, 1)
		require.NoError(t, err)
		defer func() { require.NoError(t, loss.Close()) }()
		_, err = c.Write(hello)
		require.NoError(t, err)
		_, err = c.Read(hello)
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
	})
}

// The congestion controls are told apart in what a connection says of itself.
func TestTCPCongestionControls(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	k := open(t, lab, kit.Config{Addresses: []netip.Prefix{ownedAddr}})
	for _, name := range tcp.CongestionNames() {
		kernel, kits := kernelAndKit(t, lab, k.Net(), ownedAddr.Addr(), true)
		st := kits.(*socketapi.TCPConn).Stream()
		require.NoError(t, st.SetCongestion(name))
		i, ok := st.Info()
		require.True(t, ok)
		require.Equal(t, name, i.Congestion)
		exchangeStreams(t, kernel, kits, 1<<20)
		require.NoError(t, errors.Join(kernel.Close(), kits.Close()))
	}
}

func netip4(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
