//go:build !race

package socketapi_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/internal/instructions"
	. "kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

// What a datagram costs from the card to the caller and back, by each of the calls: the engine does its steps on the caller's
// goroutine.
var engine = instructions.Table{
	onKit("ReadBatch", func(e *hosed) func(int) int {
		in := messages(most)
		return func(n int) int {
			e.takes(n)
			got, err := e.k.ReadBatch(e.socket, in, 0)
			instructions.Must(e.t, err)
			return got
		}
	}),
	onKit("RecvFrom", func(e *hosed) func(int) int {
		buf := make([]byte, 64)
		return func(n int) int {
			e.takes(n)
			for range n {
				_, _, err := e.k.RecvFrom(e.socket, buf, 0)
				instructions.Must(e.t, err)
			}
			return n
		}
	}),
	onKit("WriteBatch", func(e *hosed) func(int) int {
		out := messages(most)
		for i := range out {
			out[i].Addr = e.peer
		}
		return func(n int) int {
			_, err := e.k.WriteBatch(e.socket, out[:n], 0)
			instructions.Must(e.t, err)
			return e.sends()
		}
	}),
	onKit("SendTo", func(e *hosed) func(int) int {
		buf := make([]byte, 64)
		return func(n int) int {
			for range n {
				_, err := e.k.SendTo(e.socket, buf, 0, e.peer)
				instructions.Must(e.t, err)
			}
			return e.sends()
		}
	}),
}

// BenchmarkEngine is the table in nanoseconds and instructions.
func BenchmarkEngine(b *testing.B) { engine.Bench(b) }

// No case costs more instructions than testdata/instructions.txt says.
func TestInstructions(t *testing.T) { engine.Guard(t) }

// most is the largest round there is.
const most = 32

// A hosed program has one socket on a stack whose card is a hose.
type hosed struct {
	t      testing.TB
	s      *stack.Stack
	link   *linktest.Hose
	k      *Kit
	socket Token
	peer   netip.AddrPort
	now    clock.Time
}

// onKit is a case with datagrams of 64 bytes in which all that a round does is measured.
func onKit(name string, prepare func(e *hosed) (round func(packets int) (moved int))) instructions.Case {
	return instructions.Whole(name+"/payload=64", func(tb testing.TB) func(int) int { return prepare(newHosed(tb)) })
}

func newHosed(t testing.TB) *hosed {
	ours, peer := wire.Addr(0x0A000001), wire.Addr(0x0A000002)
	e := &hosed{
		t: t, s: newStack(1), link: linktest.NewHose(linktest.New(linktest.Config{}).End(0)),
		peer: netip.AddrPortFrom(peer.Netip(), 9), now: clock.Time(time.Hour),
	}
	card, err := e.s.AddInterface(stack.InterfaceConfig{
		Name: "card0", Links: []stack.Link{e.link}, Mode: stack.Owned, Addresses: []netip.Prefix{netip.PrefixFrom(ours.Netip(), 24)},
	})
	require.NoError(t, err)
	mac := wire.HardwareAddr{2, 0, 0, 0, 0, 9}
	card.SetNeighbour(stack.NeighbourEntry{
		Addr: peer.Netip(), HardwareAddr: net.HardwareAddr(mac[:]), State: stack.NeighbourPermanent,
	})
	h := machine(t, e.s)
	e.k, e.socket = h.calls.(*Kit), h.udp()
	h.bind(e.socket, netip.AddrPortFrom(ours.Netip(), 7))

	datagram := make([]byte, wire.UDPLen+64)
	wire.PutUDP(datagram, &wire.UDPFields{Src: peer, Dst: ours, SrcPort: 9, DstPort: 7, PayloadLen: 64}, 0)
	frame := make([]byte, wire.EthernetLen)
	wire.PutEthernet(frame, &wire.EthernetInfo{Dst: e.link.HardwareAddr(), Src: mac, Type: wire.EtherTypeIPv4})
	e.link.Lend(0, append(frame, packet(wire.ProtocolUDP, peer, ours, datagram)...))
	for range 100 { // what a card says of its addresses is said
		e.now = e.now.Add(100 * time.Millisecond)
		e.s.Step(e.now)
	}
	return e
}

// takes has the engine take n datagrams.
func (e *hosed) takes(n int) {
	e.link.Left = n
	e.s.Step(e.now)
}

// sends has the engine send what was written, and says how many frames that were.
func (e *hosed) sends() int {
	before := e.link.Sent
	e.s.Step(e.now)
	return e.link.Sent - before
}
