package loader

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// bundleHeader are the headers of a bundle from ours to the right end, in which payload bytes follow.
func (r *rig) bundleHeader(payload int) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolTCP,
		SrcIP: ours.AsSlice(), DstIP: r.lab.Right.Addr().AsSlice()}
	tcp := &layers.TCP{SrcPort: 80, DstPort: 81, Seq: 0xFFFFFF00, Ack: 5, ACK: true, PSH: true, Window: 1000}
	require.NoError(r.t, tcp.SetNetworkLayerForChecksum(ip))
	buffer := gopacket.NewSerializeBuffer()
	require.NoError(r.t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: r.lab.Left.HardwareAddr(), DstMAC: r.lab.Right.HardwareAddr(), EthernetType: layers.EthernetTypeIPv4},
		ip, tcp, gopacket.Payload(make([]byte, payload))))
	header := buffer.Bytes()[:14+20+20]
	if 40+payload > 65535 {
		binary.BigEndian.PutUint16(header[14+2:], 0)
	}
	binary.BigEndian.PutUint16(header[14+20+16:], pseudoSum(header, unix.IPPROTO_TCP, 20+payload))
	return header
}

// pseudoSum is the sum of the pseudo-header for a segment or datagram of length bytes.
func pseudoSum(header []byte, protocol, length int) uint16 {
	sum := uint32(protocol) + uint32(length)
	for i := 26; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xFFFF {
		sum = sum>>16 + sum&0xFFFF
	}
	return uint16(sum)
}

// A bundle arrives as segments whose numbers go on and whose checksums hold, behind what was queued before it.
func TestBundle(t *testing.T) {
	for name, offloads := range map[string]netlab.Offload{"cut above the driver": 0, "left whole by the driver": netlab.TxChecksum | netlab.TSO} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, netlab.Options{Left: netlab.Side{Offloads: offloads}}, Config{})
			l := r.device.Links()[0]
			require.Equal(t, 65535, l.BundleLimit(unix.IPPROTO_UDP))
			n := 20*1448 + 100
			if offloads == 0 && l.BundleLimit(unix.IPPROTO_TCP) > 65535 {
				n = l.BundleLimit(unix.IPPROTO_TCP) - 40
			} else if offloads == 0 {
				kernel, err := runningKernel()
				require.NoError(t, err)
				require.True(t, kernel.Before(longBundleKernel))
			}
			heard := r.listenRaw()
			payload := make([]byte, n)
			for i := range payload {
				payload[i] = byte(i >> 8)
			}
			first := r.datagram(9, []byte("first"))
			frame := l.Alloc()
			require.True(t, l.Send(frame[:copy(frame, first)]))
			require.True(t, l.SendBundle(r.bundleHeader(len(payload)), 14, [][]byte{payload[:7], payload[7:2000], payload[2000:]}, 1448))
			require.Equal(t, first, heard())
			var got []byte
			frames := uint64(0)
			for len(got) < len(payload) {
				f := heard()
				frames++
				packet := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
				ip, tcp := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4), packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
				require.Equal(t, 0xFFFFFF00+uint32(len(got)), tcp.Seq)
				got = append(got, tcp.Payload...)
				if offloads == 0 {
					require.Equal(t, len(got) == len(payload), tcp.PSH)
					sum := tcp.Checksum
					require.NoError(t, tcp.SetNetworkLayerForChecksum(ip))
					b := gopacket.NewSerializeBuffer()
					require.NoError(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{ComputeChecksums: true}, tcp, gopacket.Payload(tcp.Payload)))
					require.Equal(t, tcp.Checksum, sum)
				}
			}
			require.True(t, bytes.Equal(payload, got))
			c := l.Counters()
			require.Equal(t, uint64(1), c.Bundles)
			segments := (n + 1447) / 1448
			require.Equal(t, uint64(1+segments), c.TxFrames)
			require.Equal(t, uint64(len(first)+segments*54+len(payload)), c.TxBytes)
			if offloads == 0 {
				require.Equal(t, uint64(segments), frames)
			}
		})
	}
}

// Datagrams in one piece arrive as datagrams, each with its length and checksum.
func TestBundleOfDatagrams(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	l := r.device.Links()[0]
	heard := r.listenRaw()
	payload := make([]byte, 9*100+7)
	for i := range payload {
		payload[i] = byte(i)
	}
	header := r.datagram(9, payload)[:14+20+8]
	binary.BigEndian.PutUint16(header[14+20+6:], pseudoSum(header, unix.IPPROTO_UDP, 8+len(payload)))
	if !l.SendBundle(header, 14, [][]byte{payload[:150], payload[150:]}, 100) {
		require.Zero(t, l.BundleLimit(unix.IPPROTO_UDP), "a kernel before 6.2 has none, and is not asked again")
		require.NotZero(t, l.BundleLimit(unix.IPPROTO_TCP))
		return
	}
	for n := 0; n < len(payload); n += 100 {
		part := payload[n:min(n+100, len(payload))]
		require.Equal(t, r.datagram(9, part)[34:42+len(part)], heard()[34:], "ports, length, checksum and payload")
	}
	require.Equal(t, uint64(10), l.Counters().TxFrames)
	require.Equal(t, uint64(10*42+len(payload)), l.Counters().TxBytes)
}

// listenRaw hears all frames that arrive at the right end.
func (r *rig) listenRaw() (next func() []byte) {
	ear, err := r.lab.Right.Hear(patience)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, ear.Close()) })
	return func() []byte {
		heard, err := ear.Next()
		require.NoError(r.t, err)
		return heard.Frame
	}
}

// There are no bundles where frames and they could overtake each other.
func TestNoBundlesWhereOrderWouldSuffer(t *testing.T) {
	r := newRig(t, netlab.Options{Queues: 2}, Config{})
	for _, l := range r.device.Links() {
		require.Zero(t, l.BundleLimit(unix.IPPROTO_TCP))
	}
	require.Contains(t, r.log.String(), "2 transmit queues")

	r = newClosedRig(t, netlab.Options{})
	out, err := r.lab.Left.Run(t.Context(), "tc", "qdisc", "add", "dev", r.lab.Left.Interface(), "root", "pfifo", "limit", "10")
	require.NoError(t, err, "%s", out)
	require.NoError(t, r.open(Config{}))
	require.Zero(t, r.device.Links()[0].BundleLimit(unix.IPPROTO_UDP))
	require.Contains(t, r.log.String(), "queueing discipline pfifo")
}

// A bundle behind a VLAN tag is cut like any other.
func TestBundleWithTag(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	l := r.device.Links()[0]
	heard := r.listenRaw()
	payload := make([]byte, 5000)
	for i := range payload {
		payload[i] = byte(i)
	}
	header := r.bundleHeader(len(payload))
	header = append(header[:12:12], append([]byte{0x81, 0, 0, 5}, header[12:]...)...)
	require.True(t, l.SendBundle(header, 18, [][]byte{payload}, 1448))
	for n := 0; n < len(payload); n += 1448 {
		f := heard() // without the tag, which the kernel takes off
		ip := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeIPv4)
		require.NotNil(t, ip, "% x", f)
		require.Equal(t, payload[n:min(n+1448, len(payload))], ip.LayerPayload()[20:])
	}
}

// What the kernel does not take is counted, and nothing is tried a second time after an error that stays.
func TestBundleRefused(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	l := r.device.Links()[0]
	payload := [][]byte{make([]byte, 5000)}
	bad := r.bundleHeader(5000)
	require.False(t, l.SendBundle(bad, 14, make([][]byte, 65), 1448))
	require.Equal(t, Counters{}, l.Counters())
	r.change(r.lab.Left, (*netlink.Handle).LinkSetDown)
	require.False(t, l.SendBundle(bad, 14, payload, 1448))
	require.Equal(t, uint64(1), l.Counters().BundleAgain)
	r.change(r.lab.Left, (*netlink.Handle).LinkSetUp)
	require.False(t, l.SendBundle(bad, 14, payload, 0), "no segment size")
	require.Equal(t, uint64(1), l.Counters().BundleFailed)
	require.Zero(t, l.BundleLimit(unix.IPPROTO_TCP))
	require.False(t, l.SendBundle(bad, 14, payload, 1448))
	require.Equal(t, uint64(1), l.Counters().BundleFailed)
}
