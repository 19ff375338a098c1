package pcapfilter

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
)

// serialize builds a frame with its lengths and checksums.
func serialize(parts ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...)
	if err != nil {
		panic(err)
	}
	return bytes.Clone(buf.Bytes())
}

func ether(typ layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: typ,
	}
}

func ipv4(src, dst string, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func udp(src, dst uint16, ip gopacket.NetworkLayer) *layers.UDP {
	u := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
	_ = u.SetNetworkLayerForChecksum(ip)
	return u
}

func tcp(src, dst uint16, ip gopacket.NetworkLayer) *layers.TCP {
	t := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), SYN: true}
	_ = t.SetNetworkLayerForChecksum(ip)
	return t
}

// corpus is what the filters are tried on: every protocol that they name,
// tagged and not, whole and cut at every length of the first 60 bytes.
func corpus() [][]byte {
	a, b, c := "10.0.0.1", "10.0.0.2", "192.168.1.7"
	payload := gopacket.Payload("hello kit")
	ipUDP, ipUDP2 := ipv4(a, b, layers.IPProtocolUDP), ipv4(b, c, layers.IPProtocolUDP)
	ipOpt := ipv4(a, b, layers.IPProtocolUDP)
	ipOpt.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	later := ipv4(a, b, layers.IPProtocolUDP)
	later.FragOffset = 64
	first := ipv4(a, b, layers.IPProtocolUDP)
	first.Flags = layers.IPv4MoreFragments
	ipTCP := ipv4(c, a, layers.IPProtocolTCP)
	group := ipv4(a, "224.0.0.251", layers.IPProtocolUDP)
	ip6 := &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP("fe80::1"), DstIP: net.ParseIP("fe80::2")}
	ip6tcp := *ip6
	ip6tcp.NextHeader = layers.IPProtocolTCP
	ip6frag := *ip6
	ip6frag.NextHeader = layers.IPProtocolIPv6Fragment
	broadcast := ether(layers.EthernetTypeARP)
	broadcast.DstMAC = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	arp := &layers.ARP{
		AddrType: 1, Protocol: 0x800, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
		SourceHwAddress: []byte{2, 0, 0, 0, 0, 1}, SourceProtAddress: []byte{10, 0, 0, 1},
		DstHwAddress: make([]byte, 6), DstProtAddress: []byte{10, 0, 0, 2},
	}
	tag := func(id uint16, typ layers.EthernetType) *layers.Dot1Q {
		return &layers.Dot1Q{VLANIdentifier: id, Type: typ}
	}
	frames := [][]byte{
		serialize(ether(layers.EthernetTypeIPv4), ipUDP, udp(7, 4000, ipUDP), payload),
		serialize(ether(layers.EthernetTypeIPv4), ipUDP2, udp(4000, 7, ipUDP2), payload),
		serialize(ether(layers.EthernetTypeIPv4), ipUDP, udp(53, 53, ipUDP), payload),
		serialize(ether(layers.EthernetTypeIPv4), ipOpt, udp(80, 1500, ipOpt), payload),
		serialize(ether(layers.EthernetTypeIPv4), first, udp(7, 4000, first), payload),
		serialize(ether(layers.EthernetTypeIPv4), later, udp(7, 4000, later), payload),
		serialize(ether(layers.EthernetTypeIPv4), ipTCP, tcp(80, 443, ipTCP), payload),
		serialize(ether(layers.EthernetTypeIPv4), ipTCP, tcp(443, 80, ipTCP)),
		serialize(ether(layers.EthernetTypeIPv4), group, udp(5353, 5353, group), payload),
		serialize(ether(layers.EthernetTypeIPv4), ipv4(a, b, layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 8 << 8, Id: 7, Seq: 1}, payload),
		serialize(ether(layers.EthernetTypeIPv4), ipv4(b, a, layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 3<<8 | 3}, payload),
		serialize(ether(layers.EthernetTypeIPv4), ipv4(a, b, layers.IPProtocolIGMP), payload),
		serialize(ether(layers.EthernetTypeIPv4), ipv4(a, b, layers.IPProtocolSCTP), gopacket.Payload{0, 7, 0, 80, 0, 0, 0, 0}),
		serialize(ether(layers.EthernetTypeIPv6), ip6, udp(7, 53, ip6), payload),
		serialize(ether(layers.EthernetTypeIPv6), &ip6tcp, tcp(80, 7, &ip6tcp)),
		serialize(ether(layers.EthernetTypeIPv6), &ip6frag, gopacket.Payload{17, 0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 7, 0, 8, 0, 0}),
		serialize(broadcast, arp),
		serialize(ether(layers.EthernetTypeDot1Q), tag(5, layers.EthernetTypeIPv4), ipUDP, udp(7, 4000, ipUDP), payload),
		serialize(ether(layers.EthernetTypeQinQ), tag(100, layers.EthernetTypeDot1Q), tag(6, layers.EthernetTypeARP), arp),
		serialize(ether(layers.EthernetTypeDot1Q), tag(6, layers.EthernetTypeIPv6), ip6, udp(7, 53, ip6), payload),
		serialize(ether(0x88CC), payload),
		bytes.Repeat([]byte{0xFF}, 1400),
	}
	var all [][]byte
	for i, f := range frames {
		all = append(all, f)
		for cut := 1; cut < min(len(f), 60); cut += 1 + i%3 {
			all = append(all, f[:cut])
		}
	}
	return all
}

// tcpdumpMatches returns which of the frames tcpdump takes, or its complaint.
func tcpdumpMatches(t *testing.T, frames [][]byte, filter string) ([]bool, string) {
	t.Helper()
	var in bytes.Buffer
	w := pcapgo.NewWriter(&in)
	require.NoError(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
	for i, f := range frames {
		require.NoError(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(f), Length: len(f)}, f))
	}
	var out, complaint bytes.Buffer
	cmd := exec.Command("tcpdump", "-n", "-O", "-r", "-", "-w", "-", filter)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &complaint
	if err := cmd.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err, "tcpdump must be installed: apt-get install tcpdump")
		return nil, complaint.String()
	}
	matched := make([]bool, len(frames))
	r, err := pcapgo.NewReader(&out)
	require.NoError(t, err)
	for {
		_, info, err := r.ReadPacketData()
		if err != nil {
			return matched, ""
		}
		matched[info.Timestamp.Unix()] = true
	}
}

// wantAsTcpdump compares a filter's verdicts with tcpdump's, frame by frame.
func wantAsTcpdump(t *testing.T, frames [][]byte, text string) {
	t.Helper()
	want, complaint := tcpdumpMatches(t, frames, text)
	require.Empty(t, complaint, "tcpdump refuses %q", text)
	f, err := Compile(text)
	require.NoError(t, err)
	for i, frame := range frames {
		require.Equal(t, want[i], f.Match(frame), "filter %q, frame %d: % x", text, i, frame)
	}
}

var accepted = []string{
	"", "ip", "ip6", "arp", "rarp", "tcp", "udp", "icmp", "icmp6", "igmp", "sctp",
	"host 10.0.0.1", "src host 10.0.0.1", "dst 10.0.0.2", "src 10.0.0.1 and dst 10.0.0.2",
	"src or dst host 10.0.0.1", "src and dst host 10.0.0.1", "ip host 10.0.0.1", "arp host 10.0.0.1", "arp src 10.0.0.1",
	"ip src 192.168.1.7", "rarp host 10.0.0.1",
	"net 10", "net 10.0", "net 10.0.0.0/30", "src net 192.168.1.0 mask 255.255.255.0", "dst net 10.0.0.2", "net 0.0.0.0/0",
	"ip net 10.0.0.0/8", "arp net 10.0.0.0/8",
	"port 7", "src port 7", "dst port 7", "src or dst port 7", "src and dst port 53", "udp port 7", "tcp src port 80",
	"sctp port 7", "port domain", "udp port domain", "tcp port http", "port 0x35",
	"portrange 7-80", "portrange 80-7", "portrange 7", "src portrange 50-100", "udp dst portrange 0-65535",
	"proto 17", "ip proto 6", `ip proto \udp`, `ip6 proto \tcp`, `proto \icmp`, "ip6 proto 17", `ip proto \igmp`, "ip6 proto 44", `ip6 proto \icmp`, "ip proto 58", `proto \igmp`,
	"ether proto 0x806", `ether proto \ip`, `ether proto \arp`, "ether proto 0x88cc",
	"ether host 02:00:00:00:00:01", "ether src 02:00:00:00:00:01", "ether dst ff:ff:ff:ff:ff:ff",
	"broadcast", "ether broadcast", "multicast", "ether multicast", "ip multicast",
	"vlan", "vlan 5", "vlan 5 and udp", "vlan and arp", "vlan 100 and vlan 6", "vlan and vlan and arp host 10.0.0.2",
	"vlan or udp", "not vlan and arp", "udp and vlan", "(vlan 5 or arp) and port 7", "vlan 6 and ip6", "vlan and udp[0:2] = 7",
	"less 60", "greater 60", "less 40 or greater 1000", "len > 60", "len = 60", "42 <= len",
	"not udp", "! udp", "not not udp", "!(udp or tcp)", "udp && port 7", "udp || arp", "not port 7 and udp",
	"udp or tcp and port 80", "tcp and port 80 or udp", "(udp or tcp) and port 7", "udp or (tcp and port 80)",
	"port 7 or 53", "port (7 or 53)", "udp port 7 or 80 or 53", "host 10.0.0.1 and not 10.0.0.2", "host (10.0.0.1 or 192.168.1.7)",
	"dst port 7 or 4000 and host 10.0.0.2", "port (7 and not 53)", "not (port 7 or 53) and not arp",
	"udp[0:2] = 7", "udp[4:2] > 17", "icmp[icmptype] = icmp-echo", "icmp[icmptype] != icmp-echo", "not udp[2:2] = 7",
	"tcp[tcpflags] & tcp-syn != 0", "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn", "ip[0] & 0xf != 5", "ip[2:2] - 20 > 20",
	"ip[ip[0] & 0xf] = 0", "ether[0] & 1 = 0", "ether[12:2] = 0x0800", "ip6[6] = 17", "(ip[8] + 1) * 2 >= 130",
	"ip[8] / 2 = 32", "ip[8] % 10 = 4", "ip[8] >> 2 << 1 = 32", "ip[1] | 1 = 1", "ip[8] ^ 64 = 0", "udp[8:4] = 0x68656c6c",
	"arp[6:2] = 1", "icmp6[0] = 1", "1 = 1", "(1 + 1 = 2)", "((ip[0] & 0xf) = 5)", "icmp[icmptype] = 3 and icmp[icmpcode] = 3",
	"ip[16] = 10 or ip[12] = 10", "igmp[0] = 0x68", "sctp[0:2] = 7", "ip[9] = 1+1*0",
}

func TestFiltersMeanWhatTcpdumpSays(t *testing.T) {
	frames := corpus()
	for _, text := range accepted {
		wantAsTcpdump(t, frames, text)
	}
}

// TestGeneratedFilters joins the table's filters at random, to meet precedence,
// inheritance and frames that end inside a header.
func TestGeneratedFilters(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	frames := corpus()
	var parts []string
	for _, text := range accepted {
		if text != "" {
			parts = append(parts, text)
		}
	}
	for range 120 {
		text := parts[random.IntN(len(parts))]
		for range 1 + random.IntN(4) {
			next := parts[random.IntN(len(parts))]
			switch random.IntN(4) {
			case 0:
				next = "(" + next + ")"
			case 1:
				next = "not (" + next + ")"
			case 2:
				text = "(" + text + ")"
			}
			text += []string{" and ", " or ", " && ", " || "}[random.IntN(4)] + next
		}
		wantAsTcpdump(t, frames, text)
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"mpls 5":                  `filter "mpls 5": "mpls" at byte 1 is not supported by kit's filters`,
		"udp and gateway me":      `"gateway" at byte 9 is not supported by kit's filters`,
		"host kit.example":        `"kit.example" at byte 6 is not an IPv4 address (names are not looked up, IPv6 is not supported)`,
		"host ::1":                `":" at byte 6 stands where an address or number is due`,
		"host fe80::1":            `"fe80::1" at byte 6 is not an IPv4 address`,
		"host 10.0.0.0/8":         `"10.0.0.0" at byte 6 has a prefix length: write net 10.0.0.0/…`,
		"udp 7":                   `"7" at byte 5 follows "udp" without a word such as host or port between them`,
		"7":                       `"7" at byte 1 has no word such as host or port in front of it`,
		"tcp or 443":              `"443" at byte 8 has no word such as host or port in front of it`,
		"udp port":                `ends too early: the end stands where an address, port or test is due`,
		"port 70000":              `"70000" at byte 6 is no port, and no service of /etc/services`,
		"port nonesuch":           `"nonesuch" at byte 6 is no port`,
		"portrange 1:2":           `is no port, and no service of /etc/services; a range is written 1000-2000`,
		"icmp port 7":             `"7" at byte 11 can't be a port of "icmp": only tcp, udp and sctp have ports`,
		"udp host 10.0.0.1":       `"10.0.0.1" at byte 10 can't be the host of "udp": only ip, arp, rarp, ether have one here`,
		"net 10.0.0.1/8":          `"10.0.0.1" at byte 5 has bits set outside its network`,
		"net 10.0.0.0/33":         `"33" at byte 14 stands where a number from 0 to 32 is due`,
		"net 1.2.3.4.5":           `is not an IPv4 network such as 10.0.0.0/8`,
		"net 10 mask 5":           `"5" at byte 13 is not a mask such as 255.0.0.0`,
		"ether host 1":            `"1" at byte 12 is not a hardware address such as 02:00:00:00:00:01`,
		"ether":                   `"ether" at byte 1 needs host, src, dst, proto, broadcast or multicast behind it`,
		"ip broadcast":            `"broadcast" at byte 4 behind "ip" is not supported by kit's filters`,
		"ether proto 100":         `"100" at byte 13 is no Ethernet type: a number above 1500, \ip, \ip6, \arp or \rarp`,
		"src proto 17":            `"17" at byte 11 is a protocol, which has no direction`,
		"udp proto 17":            `"17" at byte 11 can't be the proto of "udp": only ether, ip and ip6 have one`,
		"proto 300":               `"300" at byte 7 is no protocol: a number up to 255`,
		"proto udp":               `"udp" at byte 7 is a keyword where an address or number is due; write \udp for the name`,
		"(udp":                    `"(" at byte 1 is never closed`,
		"udp)":                    `")" at byte 4 closes nothing`,
		"udp tcp":                 `"tcp" at byte 5 is not expected here`,
		"udp and":                 `the end stands where a test such as host, port or udp is due`,
		"and udp":                 `"and" at byte 1 is a keyword where an address or number is due`,
		"udp & tcp":               `"&" at byte 5 is not expected here`,
		"udp[8:3] = 5":            `"3" at byte 7 is no size: 1, 2 or 4 bytes can be read`,
		"udp[8 = 5":               `"=" at byte 7 stands where a closing bracket is due`,
		"udp[8]":                  `the end stands where a comparison such as = or > is due`,
		"ip[0] / 0 = 1":           `"/" at byte 7 divides by zero`,
		"len = udp":               `"udp" at byte 7 stands where a number, len or bytes such as udp[8:2] are due`,
		"vlan 5000":               `"5000" at byte 6 stands where a number from 0 to 4095 is due`,
		"less than":               `"than" at byte 6 stands where a number from 0 to`,
		"port 7 # comment":        `"#" at byte 8 is no character of a filter`,
		"nonsense":                `"nonsense" at byte 1 has no word such as host or port in front of it`,
		strings.Repeat("x", 5000): `is longer than 4096 bytes`,
		strings.Repeat("(", 100) + "udp" + strings.Repeat(")", 100): `is nested more than 64 deep`,
		strings.Repeat("not ", 100) + "udp":                         `is nested more than 64 deep`,
		"1 = " + strings.Repeat("-", 100) + "1":                     `is nested more than 64 deep`,
	} {
		_, err := Compile(text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	f, err := Compile("host 10.0.0.1 and port 7 and ether src 02:00:00:00:00:01 and udp[8] = 0x68 and not vlan")
	require.NoError(t, err)
	frame := corpus()[0]
	require.True(t, f.Match(frame))
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Match(frame) }))
}

func TestZeroFilterWantsEverything(t *testing.T) {
	require.True(t, new(Filter).Match(nil))
}

// FuzzCompile: no text and no frame makes the filter panic, and a filter that
// compiled compiles again from its own text to the same verdict.
func FuzzCompile(f *testing.F) {
	frames := corpus()
	for i, text := range accepted {
		f.Add(text, frames[i%len(frames)])
	}
	f.Fuzz(func(t *testing.T, text string, frame []byte) {
		filter, err := Compile(text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		again, err := Compile(filter.String())
		require.NoError(t, err)
		require.Equal(t, filter.Match(frame), again.Match(frame))
		negated, err := Compile(fmt.Sprintf("not (%s)", text))
		if err == nil && filter.Match(frame) {
			require.False(t, negated.Match(frame), "a filter and its negation both match")
		}
	})
}
