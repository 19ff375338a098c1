package kernel

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/stack/wire"
)

// everywhere opens a socket in a namespace and shares 0.0.0.0 and a port with p.
func everywhere(t *testing.T, p *Ports, proto wire.Protocol, port uint16) (fd int, release func(), err error) {
	t.Helper()
	kind := unix.SOCK_STREAM
	if proto == udp {
		kind = unix.SOCK_DGRAM
	}
	fd, err = p.Socket(unix.AF_INET, kind)
	require.NoError(t, err)
	if proto == tcp { // as servers do
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
	release, err = p.Share(proto, netip.AddrPortFrom(netip.IPv4Unspecified(), port), fd, func() error {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}); err != nil || proto == udp {
			return err
		}
		return unix.Listen(fd, 1)
	})
	if err != nil {
		require.NoError(t, unix.Close(fd))
	}
	return fd, release, err
}

// wantKept wants port 7 to be nobody's else.
func wantKept(t *testing.T, n *netlab.Namespace, proto wire.Protocol, why string) {
	t.Helper()
	for _, addr := range []string{"10.77.0.1:7", "0.0.0.0:7"} {
		c, err := bindKernel(n, proto, addr)
		if err == nil {
			require.NoError(t, c.Close())
		}
		require.ErrorIs(t, err, unix.EADDRINUSE, "%v %s: %s", proto, addr, why)
	}
}

// A socket that serves a port everywhere holds it for kit, too, whichever of them is there first and whichever goes first.
func TestShare(t *testing.T) {
	l := lab(t)
	p, s := newPorts(t, l.Left, PortsConfig{})
	for _, proto := range []wire.Protocol{udp, tcp} {
		for _, kitFirst := range []bool{false, true} {
			for _, kitGoesFirst := range []bool{false, true} {
				if kitFirst {
					_, err := p.Reserve(proto, l.Left.Addr(), 7)
					require.NoError(t, err)
				}
				fd, release, err := everywhere(t, p, proto, 7)
				require.NoError(t, err)
				if !kitFirst {
					_, err := p.Reserve(proto, l.Left.Addr(), 7)
					require.NoError(t, err)
				}
				require.Equal(t, []string{proto.String() + " 10.77.0.1:7"}, s.keys(), "it is steered")
				raw, err := p.SyscallConn(proto, l.Left.Addr(), 7)
				require.NoError(t, err)
				require.NoError(t, raw.Control(func(fd uintptr) {
					name, err := unix.Getsockname(int(fd))
					require.NoError(t, err)
					require.Equal(t, 7, name.(*unix.SockaddrInet4).Port)
				}))
				wantKept(t, l.Left, proto, "both are there")
				unshare := func() {
					require.NoError(t, unix.Close(fd))
					release()
					release()
				}
				if kitGoesFirst {
					p.Release(proto, l.Left.Addr(), 7)
					require.Empty(t, s.keys())
					wantKept(t, l.Left, proto, "one is there")
					unshare()
				} else {
					unshare()
					require.NotEmpty(t, s.keys())
					wantKept(t, l.Left, proto, "kit is there")
					again, release, err := everywhere(t, p, proto, 7)
					require.NoError(t, err, "one more beside it")
					wantKept(t, l.Left, proto, "both are there again")
					require.NoError(t, unix.Close(again))
					release()
					p.Release(proto, l.Left.Addr(), 7)
				}
				c, err := bindKernel(l.Left, proto, "0.0.0.0:7")
				require.NoError(t, err, "nothing is left")
				require.NoError(t, c.Close())
				require.Empty(t, p.shares)
			}
		}
	}
}

// What another program has is not shared; one address is not another.
func TestShareErrors(t *testing.T) {
	l := lab(t)
	p, _ := newPorts(t, l.Left, PortsConfig{})
	for _, proto := range []wire.Protocol{udp, tcp} {
		c, err := bindKernel(l.Left, proto, "10.77.0.1:7")
		require.NoError(t, err)
		_, _, err = everywhere(t, p, proto, 7)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		require.NoError(t, c.Close())
		require.Empty(t, p.shares)

		c, err = bindKernel(l.Left, proto, "10.77.0.1:8")
		require.NoError(t, err)
		fd, release, err := everywhere(t, p, proto, 7)
		require.NoError(t, err)
		_, err = p.Reserve(proto, l.Left.Addr(), 8)
		require.ErrorIs(t, err, unix.EADDRINUSE, "another port is no share's")
		require.NoError(t, unix.Close(fd))
		release()
		require.NoError(t, c.Close())
	}
	require.NoError(t, p.Close())
	_, err := p.Socket(unix.AF_INET, unix.SOCK_DGRAM)
	require.ErrorIs(t, err, unix.EBADF)
	_, err = p.Share(udp, netip.MustParseAddrPort("0.0.0.0:7"), 0, nil)
	require.ErrorIs(t, err, unix.EBADF)
}
