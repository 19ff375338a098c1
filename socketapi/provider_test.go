package socketapi_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// calls are the Network Kit's calls, whoever answers them. The contract is run against every provider of them.
type calls interface {
	Socket(family, typ, protocol int) (Token, error)
	CloseSocket(Token) error
	Bind(Token, *netip.AddrPort) error
	Connect(Token, netip.AddrPort) error
	Listen(Token, int) error
	Accept(Token) (Token, netip.AddrPort, error)
	GetSockName(Token) (netip.AddrPort, error)
	GetPeerName(Token) (netip.AddrPort, error)
	Send(Token, []byte, int) (int, error)
	Recv(Token, []byte, int) (int, error)
	SendTo(Token, []byte, int, netip.AddrPort) (int, error)
	RecvFrom(Token, []byte, int) (int, netip.AddrPort, error)
	Select(rng Token, read, write, except *FdSet, timeout *time.Duration) (int, error)
	SetSockOpt(t Token, level, opt int, data []byte) error
	GetSockOpt(t Token, level, opt int, data []byte) (int, error)
	SetSockOptInt(t Token, level, opt, value int) error
	GetSockOptInt(t Token, level, opt int) (int, error)
	SetTimeout(t Token, opt int, d time.Duration) error
	GetTimeout(t Token, opt int) (time.Duration, error)
	ReadBatch(Token, []stack.Message, int) (int, error)
	WriteBatch(Token, []stack.Message, int) (int, error)
	Handle(Token, stack.Handler) error
	Shutdown(Token, int) error
	Close() error
}

var _ calls = (*Kit)(nil)

// world is two machines with two cards each: card i of one is wired to card i of the other.
type world struct {
	near, far *host
	cut       func() // the wires lose every frame from now on
}

// host is one machine as a program on it sees it.
type host struct {
	calls
	t     testing.TB
	cards []netip.Addr // their addresses
	again func() calls // another program on the same machine
	start func()       // lets the machine's cards work, where the world was opened with nothing moving
}

// provider opens worlds. Where moving is false nothing is sent or received by near before near.start.
type provider struct {
	name string
	open func(t testing.TB, moving bool) *world
}

var providers = []provider{{"in process", openStacks}}

var (
	any0 = netip.AddrPortFrom(INADDR_ANY, 0)
	// nowhere is a network that no route of a world leads to.
	nowhere = netip.MustParseAddrPort("198.51.100.1:9")
)

// udp makes a UDP socket.
func (h *host) udp() Token { return h.socket(SOCK_DGRAM, IPPROTO_UDP) }

// icmp makes an ICMP socket.
func (h *host) icmp() Token { return h.socket(SOCK_DGRAM, IPPROTO_ICMP) }

func (h *host) socket(typ, protocol int) Token {
	h.t.Helper()
	s, err := h.Socket(AF_INET, typ, protocol)
	require.NoError(h.t, err)
	return s
}

// bind binds s to addr, and returns the address it got.
func (h *host) bind(s Token, addr netip.AddrPort) netip.AddrPort {
	h.t.Helper()
	require.NoError(h.t, h.Bind(s, &addr))
	return addr
}

// receiver is a UDP socket on a free port of the first card.
func (h *host) receiver() (Token, netip.AddrPort) {
	h.t.Helper()
	s := h.udp()
	return s, h.bind(s, netip.AddrPortFrom(h.cards[0], 0))
}

// connected is a UDP socket that is connected to peer.
func (h *host) connected(peer netip.AddrPort) (Token, netip.AddrPort) {
	h.t.Helper()
	s := h.udp()
	require.NoError(h.t, h.Connect(s, peer))
	local, err := h.GetSockName(s)
	require.NoError(h.t, err)
	return s, local
}

// nonBlocking sets SO_NONBLOCK.
func (h *host) nonBlocking(s Token) {
	h.t.Helper()
	require.NoError(h.t, h.SetSockOptInt(s, SOL_SOCKET, SO_NONBLOCK, 1))
}

// sends sends text to addr and wants it all taken.
func (h *host) sends(s Token, text string, addr netip.AddrPort) {
	h.t.Helper()
	n, err := h.SendTo(s, []byte(text), 0, addr)
	require.NoError(h.t, err)
	require.Equal(h.t, len(text), n)
}

// hears waits for a message, wants it to be text, and returns its sender.
func (h *host) hears(s Token, text string) netip.AddrPort {
	h.t.Helper()
	require.NoError(h.t, h.SetTimeout(s, SO_RCVTIMEO, patience))
	buf := make([]byte, 65536)
	n, from, err := h.RecvFrom(s, buf, 0)
	require.NoError(h.t, err)
	require.Equal(h.t, text, string(buf[:n]))
	return from
}

// silent wants no message to wait.
func (h *host) silent(s Token, why string) {
	h.t.Helper()
	_, _, err := h.RecvFrom(s, make([]byte, 1), MSG_DONTWAIT)
	require.ErrorIs(h.t, err, EWOULDBLOCK, why)
}

// readable reports whether Select finds s ready to read in time.
func (h *host) readable(s Token, timeout time.Duration) bool {
	h.t.Helper()
	var read FdSet
	read.Set(s)
	n, err := h.Select(read.Range(), &read, nil, nil, &timeout)
	require.NoError(h.t, err)
	require.Equal(h.t, n == 1, read.IsSet(s))
	return n == 1
}

// echoRequest is an ICMP echo request (RFC 792) with a wrong identifier and checksum: both are the stack's to fill in.
func echoRequest(seq uint16, data string) []byte {
	m := []byte{8, 0, 0xDE, 0xAD, 0xBE, 0xEF, 0, 0}
	binary.BigEndian.PutUint16(m[6:], seq)
	return append(m, data...)
}

// patience is how long a test waits for what must come. It is long because only a failure takes that long.
const patience = 20 * time.Second
