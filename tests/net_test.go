package tests

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
)

// A program that has written kit for net serves its card: here net/http, against the kernel's client, in shared mode, where the
// kernel keeps the port.
func TestKitForNet(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	kit.SetDefault(open(t, lab, kit.Config{}))
	l, err := kit.Listen("tcp", ":8080")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	defer func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	}()
	transport := &http.Transport{DialContext: lab.Left.Dial}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: patience}
	text := strings.Repeat("hello kernel ", 50_000)
	r, err := client.Post("http://"+netip4(lab.Right.Addr(), 8080), "text/plain", strings.NewReader(text))
	require.NoError(t, err)
	got, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, text, string(got))
	requireKept(t, l.(syscall.Conn), 8080)
	require.ErrorIs(t, lab.Right.Do(func() error {
		_, err := net.Listen("tcp4", netip4(lab.Right.Addr(), 8080))
		return err
	}), syscall.EADDRINUSE, "the kernel keeps it")

	// The other way: the kernel serves, kit asks.
	kernels, err := lab.Left.Listen("tcp4", netip4(lab.Left.Addr(), 0))
	require.NoError(t, err)
	go func() { served <- server.Serve(kernels) }()
	asking := &http.Transport{DialContext: kit.DialContext}
	defer asking.CloseIdleConnections()
	client.Transport = asking
	r, err = client.Post("http://"+kernels.Addr().String(), "text/plain", strings.NewReader(text))
	require.NoError(t, err)
	got, err = io.ReadAll(r.Body)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, text, string(got))
	require.NoError(t, server.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}

// requireKept wants a conn's descriptor to be the kernel's socket for a port.
func requireKept(t *testing.T, c syscall.Conn, port int) {
	t.Helper()
	r, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, r.Control(func(fd uintptr) {
		name, err := unix.Getsockname(int(fd))
		require.NoError(t, err)
		require.Equal(t, port, name.(*unix.SockaddrInet4).Port)
	}))
}

// echoes sends back what comes, until c is closed: then what it returns is closed.
func echoes(c net.PacketConn) <-chan struct{} {
	served := make(chan struct{})
	go func() {
		defer close(served)
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	return served
}

// A packet conn without a host answers from the address that the kernel's client asked, one that the card got later included.
func TestPacketConnFollowsTheKernel(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	kit.SetDefault(open(t, lab, kit.Config{}))
	c, err := kit.ListenPacket("udp", ":5353")
	require.NoError(t, err)
	served := echoes(c)
	requireKept(t, c.(syscall.Conn), 5353)
	require.Equal(t, "x", string(exchange(t, lab.Left, netip4(lab.Right.Addr(), 5353), []byte("x"))))
	later := netip.MustParseAddr("10.77.0.99")
	out, err := lab.Right.Run(t.Context(), "ip", "address", "add", later.String()+"/24", "dev", lab.Right.Interface())
	require.NoError(t, err, "%s", out)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		k, err := lab.Left.Dial(ctx, "udp", netip4(later, 5353)) // hears nothing from another address
		if err != nil {
			return false
		}
		defer k.Close()
		_, err = k.Write([]byte("later"))
		require.NoError(t, err)
		require.NoError(t, k.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		buf := make([]byte, 100)
		n, err := k.Read(buf)
		return err == nil && string(buf[:n]) == "later"
	}, patience, 10*time.Millisecond)
	require.NoError(t, c.Close())
	<-served
}
