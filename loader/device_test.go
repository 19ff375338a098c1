package loader

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/internal/netlab"
)

// patience is how long a test waits for something that is bound to happen.
const patience = 10 * time.Second

// ours is the address that kit owns in these tests; the kernel does not have it.
var ours = netip.MustParseAddr("10.77.0.9")

// A rig is a veth pair with a device on its left end and the kernel behind its right end, which knows where ours is.
type rig struct {
	t      testing.TB
	lab    *netlab.Lab
	device *Device
	log    bytes.Buffer // what the device said, one line a record
}

// newRig opens the left end of a new veth pair.
func newRig(t testing.TB, opts netlab.Options, c Config) *rig {
	t.Helper()
	r := &rig{t: t, lab: netlab.Test(t, opts)}
	r.teach(r.lab.Right, ours)
	require.NoError(t, r.open(c))
	return r
}

// open opens the device with the configuration and steers ours to it.
func (r *rig) open(c Config) error {
	c.Interface = r.lab.Left.Interface()
	c.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	err := r.lab.Left.Do(func() (err error) {
		r.device, err = Open(c)
		return err
	})
	if err != nil {
		return err
	}
	r.t.Cleanup(func() { require.NoError(r.t, r.device.Close()) })
	require.NoError(r.t, r.device.Tables().SetAddress(ours, bpf.Owned))
	return r.device.Tables().SetEnabled(true)
}

// teach writes an address at the left end's hardware address into a namespace's neighbour table.
func (r *rig) teach(ns *netlab.Namespace, addr netip.Addr) {
	r.t.Helper()
	_, err := ns.Run(r.t.Context(), "ip", "neigh", "replace", addr.String(), "lladdr", r.lab.Left.HardwareAddr().String(),
		"dev", ns.Interface(), "nud", "permanent")
	require.NoError(r.t, err)
}

// dial returns a UDP socket of the right end's kernel, connected to a port of ours.
func (r *rig) dial(port int) *net.UDPConn {
	r.t.Helper()
	conn, err := r.lab.Right.Dial(r.t.Context(), "udp4", netip.AddrPortFrom(ours, uint16(port)).String())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// receive polls all links until n frames came, or fails.
func (r *rig) receive(n int, input func(l *Link, frame []byte)) {
	r.t.Helper()
	r.until(func() bool {
		for _, l := range r.device.Links() {
			n -= l.Poll(64, func(frame []byte) { input(l, frame) })
			l.Flush()
		}
		return n <= 0
	}, "%d frames are missing", &n)
}

// until polls a condition, or fails.
func (r *rig) until(condition func() bool, format string, args ...any) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf(format, args...)
		}
	}
}

// datagram is a UDP frame from ours to the right end with whole checksums.
func (r *rig) datagram(port uint16, payload []byte) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: ours.AsSlice(), DstIP: r.lab.Right.Addr().AsSlice()}
	udp := &layers.UDP{SrcPort: 7, DstPort: layers.UDPPort(port)}
	require.NoError(r.t, udp.SetNetworkLayerForChecksum(ip))
	buffer := gopacket.NewSerializeBuffer()
	require.NoError(r.t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: r.lab.Left.HardwareAddr(), DstMAC: r.lab.Right.HardwareAddr(), EthernetType: layers.EthernetTypeIPv4},
		ip, udp, gopacket.Payload(payload)))
	return buffer.Bytes()
}

// turn makes a UDP frame its own answer, in place: addresses and ports swap, and no checksum changes by that.
func turn(frame []byte) {
	var hold [6]byte
	copy(hold[:], frame[0:6])
	copy(frame[0:6], frame[6:12])
	copy(frame[6:12], hold[:])
	copy(hold[:4], frame[26:30])
	copy(frame[26:30], frame[30:34])
	copy(frame[30:34], hold[:4])
	copy(hold[:2], frame[34:36])
	copy(frame[34:36], frame[36:38])
	copy(frame[36:38], hold[:2])
}

// payloadOf is a UDP frame's payload.
func payloadOf(frame []byte) []byte { return frame[42 : 14+binary.BigEndian.Uint16(frame[16:])] }

// wantEcho sends n payloads of the given size from the right end and requires that each comes back the same.
func (r *rig) wantEcho(n, size int) {
	r.t.Helper()
	conn := r.dial(7)
	answer := make([]byte, 1<<16)
	for i := range n {
		payload := testFrame(size, i)
		_, err := conn.Write(payload)
		require.NoError(r.t, err)
		r.receive(1, func(l *Link, frame []byte) {
			turn(frame)
			require.True(r.t, l.Send(frame))
		})
		require.NoError(r.t, conn.SetReadDeadline(time.Now().Add(patience)))
		got, err := conn.Read(answer)
		require.NoError(r.t, err)
		require.Equal(r.t, payload, answer[:got])
	}
}

func TestReceive(t *testing.T) {
	for _, attach := range []AttachMode{AttachNative, AttachGeneric} {
		t.Run(attach.String(), func(t *testing.T) {
			r := newRig(t, netlab.Options{}, Config{Attach: attach})
			conn := r.dial(7)
			for i := range 100 {
				_, err := conn.Write(testFrame(100, i))
				require.NoError(t, err)
			}
			i := 0
			r.receive(100, func(_ *Link, frame []byte) {
				require.Equal(t, testFrame(100, i), payloadOf(frame))
				require.Equal(t, 2048-headroom, cap(frame))
				i++
			})
			require.EqualValues(t, 100, r.device.Links()[0].Counters().RxFrames)
		})
	}
}

func TestTransmit(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	conn, err := r.lab.Right.ListenPacket("udp4", ":9")
	require.NoError(t, err)
	defer conn.Close()
	l := r.device.Links()[0]
	const n = 500 // more than the kernel sends at one kick by default
	for i := range n {
		frame := l.Alloc()
		require.NotNil(t, frame)
		require.True(t, l.Send(frame[:copy(frame, r.datagram(9, testFrame(200, i)))]))
	}
	r.until(func() bool { return !l.Flush() }, "frames stay queued")
	buffer := make([]byte, 2048)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	for i := range 100 { // what the receiving socket's buffer surely holds
		got, from, err := conn.ReadFrom(buffer)
		require.NoError(t, err)
		require.Equal(t, testFrame(200, i), buffer[:got])
		require.Equal(t, ours, from.(*net.UDPAddr).AddrPort().Addr())
	}
	r.until(func() bool { l.Flush(); return l.Counters().Completions == n }, "completions are missing")
	require.EqualValues(t, n, l.Counters().TxFrames)
}

func TestEchoInPlace(t *testing.T) {
	for _, attach := range []AttachMode{AttachNative, AttachGeneric} {
		t.Run(attach.String(), func(t *testing.T) {
			r := newRig(t, netlab.Options{}, Config{Attach: attach, RingSize: 64})
			r.wantEcho(300, 1472)
		})
	}
}
