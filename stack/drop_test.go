package stack

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// dropTests reach each reason, in as few lines as it takes. What else there is to say about each is said in its own file.
var dropTests = map[DropReason]func(t *testing.T) *host{
	DropFrameTooShort: arrived(packet{}.udp(1, 7, "x")[:13]),
	DropOtherHost:     arrived(packet{toMAC: otherMAC}.udp(1, 7, "x")),
	DropEtherType:     arrived(packet{}.ethernet(wire.EtherTypeIPv6, make([]byte, 40))),
	DropARPMalformed:  arrived(whoHas(hostIP)[:30]),
	DropARPNotForUs:   arrived(packet{}.arp(wire.ARPRequest, otherMAC, otherIP, wire.HardwareAddr{}, "10.0.0.77")),

	DropIPTruncated:     arrived(packet{}.udp(1, 7, "x")[:20]),
	DropIPVersion:       arrived(ipHeader(packet{}.udp(1, 7, "x"), func(ip []byte) { ip[0] = 0x65 })),
	DropIPHeaderLength:  arrived(ipHeader(packet{}.udp(1, 7, "x"), func(ip []byte) { ip[0] = 0x44 })),
	DropIPTotalLength:   arrived(ipHeader(packet{}.udp(1, 7, "x"), func(ip []byte) { ip[3] = 19 })),
	DropIPChecksum:      arrived(flipped(packet{}.udp(1, 7, "x"), wire.EthernetLen+8)),
	DropIPOptions:       arrived(packet{options: []byte{7, 0, 0, 0}}.udp(1, 7, "x")),
	DropIPSource:        arrived(packet{from: "127.0.0.1"}.udp(1, 7, "x")),
	DropIPNotOurs:       arrived(packet{to: otherIP}.udp(1, 7, "x")),
	DropIPLinkBroadcast: arrived(packet{toMAC: wire.HardwareBroadcast}.udp(1, 7, "x")),
	DropIPProtocol:      arrived(packet{}.ip(47, nil)),

	DropFragmentMalformed: arrived(packet{mf: true}.ip(wire.ProtocolUDP, make([]byte, 7))),
	DropFragmentOverlap:   arrived(packet{mf: true}.ip(wire.ProtocolUDP, make([]byte, 16)), packet{off: 8}.ip(wire.ProtocolUDP, make([]byte, 9))),
	DropFragmentTooLong:   arrived(packet{off: 65528}.ip(wire.ProtocolUDP, make([]byte, 8))),
	DropFragmentTimeout: func(t *testing.T) *host {
		h := arrived(packet{mf: true}.ip(wire.ProtocolUDP, make([]byte, 16)))(t)
		h.wait(seconds(31))
		return h
	},
	DropFragmentMemory: func(t *testing.T) *host {
		h := newHost(t, func(s *setup) { s.Limits.ReassemblyBytes = 1 })
		h.arrives("fragment-memory", packet{mf: true}.ip(wire.ProtocolUDP, make([]byte, 16)))
		return h
	},

	DropICMPTruncated: arrived(packet{}.ip(wire.ProtocolICMP, make([]byte, 7))),
	DropICMPChecksum:  arrived(flipped(packet{}.ping(1, 1, "x"), wire.EthernetLen+wire.IPv4Len+4)),
	DropICMPBroadcast: arrived(packet{to: bcastIP}.ping(1, 1, "x")),
	DropICMPType:      arrived(packet{}.icmp(wire.ICMPTimestamp, 0, 0, make([]byte, 12))),
	DropICMPNoSocket:  arrived(packet{}.icmp(wire.ICMPEchoReply, 0, 1, nil)),
	DropICMPQuote:     arrived(packet{}.icmp(wire.ICMPUnreachable, 3, 0, nil)),

	DropUDPTruncated: arrived(packet{}.ip(wire.ProtocolUDP, make([]byte, 7))),
	DropUDPLength:    arrived(packet{}.ip(wire.ProtocolUDP, make([]byte, 8))),
	DropUDPChecksum:  arrived(flipped(packet{}.udp(1, 7, "x"), wire.EthernetLen+wire.IPv4Len+wire.UDPLen)),
	DropUDPPort:      arrived(packet{}.udp(1, 0, "x")),
	DropUDPNoPort:    arrived(packet{}.udp(1, 7, "x")),

	DropTCPHeader:    arrived(packet{}.ip(wire.ProtocolTCP, make([]byte, 19))),
	DropTCPChecksum:  arrived(flipped(syn(1, 80), wire.EthernetLen+wire.IPv4Len+wire.TCPLen-2)),
	DropTCPBroadcast: arrived(packet{to: bcastIP}.tcp(segment{sport: 1, dport: 80, flags: wire.SYN})),
	DropTCPOptions:   arrived(packet{}.tcp(segment{sport: 1, dport: 80, flags: wire.SYN, options: []byte{2, 1, 0, 0}})),
	DropTCPPort:      arrived(syn(1, 0), syn(0, 80)),
	DropTCPNoPort:    arrived(syn(1, 80)),
	DropTCPListenIgnored: func(t *testing.T) *host {
		h := newHost(t)
		h.listens("10.0.0.1:80", ListenConfig{Backlog: 1})
		h.arrives("tcp-listen-ignored", packet{}.tcp(segment{sport: 1, dport: 80, flags: wire.FIN}))
		h.arrives("tcp-listen-ignored", packet{}.tcp(segment{sport: 1, dport: 80, flags: wire.ACK}))
		return h
	},
	DropListenRefused: func(t *testing.T) *host {
		h := newHost(t)
		h.listens("10.0.0.1:80", ListenConfig{Count: 1})
		h.arrives("delivered", syn(1, 80))
		h.arrives("listen-refused", syn(2, 80))
		return h
	},
	DropListenOverflow: func(t *testing.T) *host {
		h := newHost(t)
		h.listens("10.0.0.1:80", ListenConfig{Backlog: 1})
		h.talk(80, 1).handshake()
		h.arrives("listen-overflow", syn(2, 80))
		return h
	},

	DropSocketFull: func(t *testing.T) *host {
		h := newHost(t)
		h.bind("10.0.0.1:7").SetReceiveBuffer(1)
		for h.Stats().Drops[DropSocketFull] == 0 {
			h.peers[0].Inject(packet{}.udp(1, 7, pattern(1000)))
			h.settle()
		}
		return h
	},

	DropNoRoute: func(t *testing.T) *host {
		h := newHost(t)
		s := h.bind("10.0.0.1:7")
		s.writes("x", farIP+":9")
		require.NoError(t, h.iface.SetRoutes(nil))
		return h
	},
	DropNeighbourFailed: func(t *testing.T) *host {
		h := newHost(t)
		h.bind("10.0.0.1:7").writes("x", otherIP+":9")
		h.wait(seconds(4))
		return h
	},
	DropNeighbourQueueFull: func(t *testing.T) *host {
		h := newHost(t, func(s *setup) { s.Limits.NeighbourQueue = 1 })
		s := h.bind("10.0.0.1:7")
		s.writes("x", otherIP+":9")
		s.writes("x", otherIP+":9")
		return h
	},
	DropNeighbourTableFull: func(t *testing.T) *host {
		h := newHost(t, func(s *setup) { s.Limits.Neighbours = 1 })
		h.keepPeer()
		h.bind("10.0.0.1:7").writes("x", otherIP+":9")
		return h
	},
	DropTooLong: func(t *testing.T) *host {
		h := newHost(t, func(s *setup) { s.wrap = func(l Link) Link { return tightLink{l} } })
		h.arrives("answered", packet{vlans: []wire.VLANTag{0x81000005}}.arp(wire.ARPRequest, otherMAC, otherIP, wire.HardwareAddr{}, hostIP))
		h.bind("10.0.0.1:7").writes(pattern(1472), otherIP+":9")
		return h
	},
	DropTransmitFull: func(t *testing.T) *host {
		h, room := newScarce(t)
		*room = 0
		h.arrives("transmit-full", packet{}.ping(1, 1, "x"))
		return h
	},
	DropForwardFull: func(t *testing.T) *host {
		h := newHost(t, func(s *setup) { s.queues, s.ring = 2, 4096 })
		for id := range uint16(2000) {
			h.peers[0].Inject(packet{id: id, mf: true}.ip(wire.ProtocolUDP, make([]byte, 1400)))
		}
		e := h.iface.engines[0]
		for e.stats.RxFrames < 2000 {
			e.Step(h.now)
		}
		return h
	},
}

// arrived has the peer send frames to a host without sockets.
func arrived(frames ...[]byte) func(*testing.T) *host {
	return func(t *testing.T) *host {
		h := newHost(t)
		for _, f := range frames {
			require.True(t, h.peers[0].Inject(f))
		}
		h.settle()
		return h
	}
}

// flipped is a frame with one bit turned over.
func flipped(frame []byte, at int) []byte {
	frame[at] ^= 1
	return frame
}

// Every way for a packet to end in a drop is reached, counted under its reason and under no other.
func TestDropReasons(t *testing.T) {
	for r, reach := range dropTests {
		t.Run(r.String(), func(t *testing.T) {
			h := reach(t)
			h.settle()
			s := h.Stats()
			require.NotZero(t, s.Drops[r]+s.TxDrops[r])
			for other := range s.Drops {
				if DropReason(other) != r {
					require.Zero(t, s.Drops[other]+s.TxDrops[other], "%v too", DropReason(other))
				}
			}
		})
	}
}

// A reason without a test above, a name or a sentence is not finished.
func TestEveryDropReasonHasATest(t *testing.T) {
	require.Len(t, DropReasons(), int(NumDropReasons)-1)
	names := make(map[string]bool)
	for _, r := range DropReasons() {
		require.Contains(t, dropTests, r, "%v has no test", r)
		require.Regexp(t, "^[a-z]+(-[a-z]+)*$", r.String())
		require.False(t, names[r.String()], "two reasons are called %v", r)
		names[r.String()] = true
		require.True(t, strings.HasSuffix(strings.TrimSuffix(r.Doc(), ")"), ".") || strings.HasSuffix(r.Doc(), ".") || strings.HasSuffix(r.Doc(), ")."), r.Doc())
	}
	require.Equal(t, "none", NotDropped.String())
	require.Equal(t, "unknown", NumDropReasons.String())
	require.NotEmpty(t, NumDropReasons.Doc())
}
