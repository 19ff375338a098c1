package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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
	r := newClosedRig(t, opts)
	require.NoError(t, r.open(c))
	return r
}

// open opens the device with the configuration and steers ours to it.
func (r *rig) open(c Config) error {
	c.Interface = r.lab.Left.Interface()
	c.Logger = r.logger()
	var d *Device
	err := r.lab.Left.Do(func() (err error) {
		d, err = Open(c)
		return err
	})
	if err != nil {
		return err
	}
	r.device = d
	r.t.Cleanup(func() { require.NoError(r.t, d.Close()) })
	require.NoError(r.t, r.device.Tables().SetAddress(ours, bpf.Owned))
	return r.device.Tables().SetEnabled(true)
}

// logger writes to the rig's log.
func (r *rig) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&r.log, nil)) }

// teach writes an address at the left end's hardware address into a namespace's neighbour table.
func (r *rig) teach(ns *netlab.Namespace, addr netip.Addr) {
	r.t.Helper()
	require.NoError(r.t, ns.Links().NeighSet(&netlink.Neigh{
		LinkIndex: ns.Index(), Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: addr.AsSlice(), HardwareAddr: r.lab.Left.HardwareAddr(),
	}))
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

// Frames longer than a buffer go both ways, in several descriptors, whatever the buffers' size.
func TestJumbo(t *testing.T) {
	for _, c := range []Config{{}, {FrameSize: 2048}, {Attach: AttachGeneric}} {
		t.Run(fmt.Sprintf("%s, frames of %d", c.Attach, c.FrameSize), func(t *testing.T) {
			c.RingSize = 64
			if before(t, scatterKernel) {
				err := newClosedRig(t, netlab.Options{MTU: 9000}).open(c)
				require.ErrorIs(t, err, ErrMTU)
				require.ErrorContains(t, err, "which needs Linux 6.6; ip link set dev left0 mtu ")
				return
			}
			r := newRig(t, netlab.Options{MTU: 9000}, c)
			require.True(t, r.device.Info().Queues[0].MultiBuffer)
			for _, size := range []int{20, 1750, 1751, 3798, 3799, 8000, 8972} {
				r.wantEcho(3, size)
			}
			r.wantEcho(100, 8972)
			counters := r.device.Links()[0].Counters()
			require.NotZero(t, counters.RxJoined)
			require.Zero(t, counters.TxInvalid+counters.RxInvalid+counters.RxTooLong+counters.CompletionInvalid)

			conn, err := r.lab.Right.ListenPacket("udp4", ":9")
			require.NoError(t, err)
			defer conn.Close()
			l := r.device.Links()[0]
			frame := l.Alloc()
			require.Len(t, frame, 9000+frameExtra)
			require.True(t, l.Send(frame[:copy(frame, r.datagram(9, testFrame(8972, 1)))]))
			r.until(func() bool { return !l.Flush() }, "the frame stays queued")
			got := make([]byte, 9000)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			n, _, err := conn.ReadFrom(got)
			require.NoError(t, err)
			require.Equal(t, testFrame(8972, 1), got[:n])
		})
	}
}

// before tells whether the running kernel is older than a version.
func before(t *testing.T, version KernelVersion) bool {
	release, err := kernelRelease()
	require.NoError(t, err)
	running, err := parseKernel(release)
	require.NoError(t, err)
	return running.Before(version)
}

// MTUs about the borders of both frame sizes.
func TestMTUs(t *testing.T) {
	for _, mtu := range []int{1500, 1774, 1775, 2030, 3506, 3822, 4078, 4079} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			if mtu > largeFrame-headroom-frameExtra && before(t, scatterKernel) {
				require.ErrorIs(t, newClosedRig(t, netlab.Options{MTU: mtu}).open(Config{}), ErrMTU)
				return
			}
			r := newRig(t, netlab.Options{MTU: mtu}, Config{RingSize: 64})
			require.Equal(t, mtu, r.device.Links()[0].MTU())
			r.wantEcho(5, mtu-28)
		})
	}
}

// Every queue receives and sends: on veth a frame arrives on the queue it was sent on, and flows spread over the queues.
func TestQueues(t *testing.T) {
	for _, queues := range []int{2, 4} {
		t.Run(strconv.Itoa(queues), func(t *testing.T) {
			r := newRig(t, netlab.Options{Queues: queues}, Config{RingSize: 64})
			require.Len(t, r.device.Links(), queues)
			seen := map[int]bool{}
			r.until(func() bool {
				conn := r.dial(7)
				_, err := conn.Write([]byte("which queue?"))
				require.NoError(t, err)
				r.receive(1, func(l *Link, frame []byte) {
					seen[l.Queue()] = true
					turn(frame)
					require.True(t, l.Send(frame))
				})
				require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
				_, err = conn.Read(make([]byte, 100))
				require.NoError(t, err)
				return len(seen) == queues
			}, "some queue receives nothing")
			for _, l := range r.device.Links() {
				require.NotZero(t, l.Counters().RxFrames)
				require.NotZero(t, l.Counters().TxFrames)
				require.True(t, l.CanSend())
			}
		})
	}
}

// Only the chosen queues are taken; frames on the others are the kernel's.
func TestChosenQueues(t *testing.T) {
	r := newRig(t, netlab.Options{Queues: 4}, Config{RingSize: 64, Queues: []int{2}})
	require.Len(t, r.device.Links(), 1)
	require.Equal(t, 2, r.device.Links()[0].Queue())
	require.ErrorIs(t, newClosedRig(t, netlab.Options{}).open(Config{Queues: []int{1}}), ErrConfig)
}

// A card may have more receive than transmit queues: those without only receive.
func TestMoreReceiveThanTransmitQueues(t *testing.T) {
	r := newClosedRig(t, netlab.Options{Queues: 4})
	_, err := r.card().tool.SetChannels(r.lab.Left.Interface(), ethtool.Channels{RxCount: 4, TxCount: 2})
	if before(t, KernelVersion{5, 15}) {
		require.ErrorIs(t, err, unix.EOPNOTSUPP, "veth had no channels to set")
		return
	}
	require.NoError(t, err)
	require.NoError(t, r.open(Config{RingSize: 64}))
	require.Equal(t, [2]int{4, 2}, [2]int{r.device.Info().RxQueues, r.device.Info().TxQueues})
	require.Len(t, r.device.Links(), 4)
	for i, l := range r.device.Links() {
		require.Equal(t, i < 2, l.CanSend())
		require.Equal(t, i < 2, r.device.Info().Queues[i].CanSend)
	}
	require.Contains(t, r.log.String(), "the queue only receives")
	seen := map[int]bool{}
	r.until(func() bool {
		_, err := r.dial(7).Write([]byte("which queue?"))
		require.NoError(t, err)
		r.receive(1, func(l *Link, frame []byte) {
			seen[l.Queue()] = true
			require.Equal(t, l.CanSend(), l.Send(frame))
		})
		return len(seen) == 4
	}, "some queue receives nothing")
}

func TestLinkDownAndUp(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	r.wantEcho(3, 100)
	l := r.device.Links()[0]
	r.change(r.lab.Left, (*netlink.Handle).LinkSetDown)
	require.False(t, r.device.Info().Up)
	require.True(t, l.Send(l.Alloc()[:copy(l.Alloc(), r.datagram(9, nil))]))
	require.False(t, l.Flush(), "no hurry while the interface is down")
	require.NotZero(t, l.Counters().KickDown)
	require.NoError(t, l.Wait(time.Millisecond), "the interface is not gone")

	r.change(r.lab.Left, (*netlink.Handle).LinkSetUp)
	r.until(func() bool { return r.device.Info().Running }, "no carrier")
	r.until(func() bool { l.Flush(); return l.Counters().Completions == l.Counters().TxFrames }, "what was queued is not sent")
	r.wantEcho(3, 100)
}

// change does something to the interface of a namespace's first end.
func (r *rig) change(ns *netlab.Namespace, what func(links *netlink.Handle, device netlink.Link) error) {
	r.t.Helper()
	device, err := ns.Links().LinkByIndex(ns.Index())
	require.NoError(r.t, err)
	require.NoError(r.t, what(ns.Links(), device))
}

// The peer is down: what is sent is dropped by the driver, and nothing is stuck.
func TestPeerDown(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{RingSize: 64})
	r.change(r.lab.Right, (*netlink.Handle).LinkSetDown)
	l := r.device.Links()[0]
	for range 500 {
		frame := l.Alloc()
		require.NotNil(t, frame)
		require.True(t, l.Send(frame[:copy(frame, r.datagram(9, nil))]))
		l.Flush()
	}
	r.until(func() bool { l.Flush(); return l.Counters().Completions == 500 }, "frames are lost")
}

func TestDeletedInterfaceEndsWait(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	l := r.device.Links()[0]
	ended := make(chan error, 1)
	go func() {
		err := l.Wait(-1)
		for err == nil {
			l.Poll(64, drop)
			err = l.Wait(-1)
		}
		ended <- err
	}()
	r.change(r.lab.Left, (*netlink.Handle).LinkDel)
	select {
	case err := <-ended:
		require.ErrorIs(t, err, ErrGone)
		require.ErrorIs(t, err, unix.ENETDOWN)
	case <-time.After(patience):
		t.Fatal("Wait sleeps on")
	}
	info := r.device.Info()
	require.False(t, info.Present)
	require.False(t, info.Up)
	require.Equal(t, r.lab.Left.Interface(), info.Interface)
	require.True(t, l.Send(l.Alloc()[:60]))
	require.False(t, l.Flush(), "and nothing hangs")
	require.ErrorIs(t, l.Wait(0), ErrGone)
}

// While one socket is closing, its queue is busy for some milliseconds: Open waits.
func TestReopenAtOnce(t *testing.T) {
	r := newRig(t, netlab.Options{Queues: 2}, Config{RingSize: 64})
	for range 10 {
		require.NoError(t, r.device.Close())
		require.NoError(t, r.open(Config{RingSize: 64}))
	}
	r.wantEcho(3, 100)
}

// A socket of another program holds the queue for good: the error says so.
func TestBusyQueue(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	u, err := mapUmem(2048, 128, 1, 0, false)
	require.NoError(t, err)
	defer u.close()
	require.NoError(t, r.lab.Left.Do(func() error {
		other, err := openSocket(u, r.lab.Left.Index(), 0, ringSizes{64, 64, 128, 64}, bindMode{})
		if err == nil {
			t.Cleanup(func() { require.NoError(t, other.close()) })
		}
		return err
	}))
	err = r.open(Config{})
	require.ErrorIs(t, err, ErrQueueBusy)
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorContains(t, err, "ss --xdp")
	other, err := r.card().attachedProgram()
	require.NoError(t, err)
	require.Nil(t, other, "the failed Open left its program behind")
}

// The completion ring is smaller than what is sent, so the kernel says EAGAIN: Flush reaps and all goes out.
func TestFullCompletionRing(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	u, err := mapUmem(2048, 512, 1, 0, false)
	require.NoError(t, err)
	defer u.close()
	var s *socket
	require.NoError(t, r.lab.Left.Do(func() error {
		s, err = openSocket(u, r.lab.Left.Index(), 0, ringSizes{rx: 256, tx: 256, fill: 512, completion: 16}, bindMode{})
		return err
	}))
	defer s.close()
	s.raiseBudget(256)
	l, err := newLink(u, s.rings, s, s.fd, linkConfig{mtu: 1500, target: 256, limit: 256, copies: true})
	require.NoError(t, err)
	defer l.wake.close()
	for range 200 {
		frame := l.Alloc()
		require.True(t, l.Send(frame[:copy(frame, r.datagram(9, nil))]))
	}
	r.until(func() bool { l.Flush(); return l.Counters().Completions == 200 }, "frames are stuck")
	require.Greater(t, l.Counters().Kicks, uint64(200/16))
	require.Len(t, u.free, 256)
}

// The kernel refuses a descriptor outside the packet memory, counts it, and the link goes on.
func TestInvalidTransmitDescriptor(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	l := r.device.Links()[0]
	l.putTx(1<<40, 60, 0)
	r.until(func() bool { return !l.Flush() }, "the descriptor is stuck")
	stats, err := r.device.Stats()
	require.NoError(t, err)
	require.EqualValues(t, 1, stats[0].TxInvalid)
	r.wantEcho(3, 100)
}

// Nobody polls: the kernel counts what it drops.
func TestStatistics(t *testing.T) {
	r := newRig(t, netlab.Options{Queues: 2}, Config{RingSize: 64})
	conn := r.dial(7)
	r.until(func() bool {
		for range 100 {
			_, err := conn.Write([]byte("too many"))
			require.NoError(t, err)
		}
		stats, err := r.device.Stats()
		require.NoError(t, err)
		require.Len(t, stats, 2)
		require.Equal(t, 1, stats[1].Queue)
		dropped := uint64(0)
		for _, s := range stats {
			dropped += s.RxFillRingEmpty + s.RxRingFull
		}
		return dropped > 0
	}, "nothing was dropped")
	r.receive(64, func(*Link, []byte) {})
	r.wantEcho(3, 100)
}

func TestInfoFollowsTheInterface(t *testing.T) {
	r := newRig(t, netlab.Options{Queues: 2}, Config{HugePages: true})
	info := r.device.Info()
	require.Equal(t, r.lab.Left.Interface(), info.Interface)
	require.Equal(t, r.lab.Left.Index(), info.Index)
	require.Equal(t, r.lab.Left.HardwareAddr(), info.HardwareAddr)
	require.Equal(t, "veth", info.Driver)
	require.True(t, info.Present && info.Up && info.Running && info.PartialChecksums)
	require.Equal(t, AttachNative, info.Attach)
	require.Equal(t, [5]int{1500, 1500, 2048, 8192, 4096}, [5]int{info.MTU, info.DeviceMTU, info.FrameSize, info.Frames, info.RingSize})
	require.Equal(t, [2]int{2, 2}, [2]int{info.RxQueues, info.TxQueues})
	require.NotZero(t, info.ProgramID)
	require.NotZero(t, info.LinkID)
	require.Equal(t, before(t, scatterKernel), info.Program == string(bpf.Linear))
	require.Len(t, info.Queues, 2)
	l := r.device.Links()[0]
	require.Equal(t, [6]byte(r.lab.Left.HardwareAddr()), l.HardwareAddr())
	require.True(t, l.PartialChecksums())

	out, err := r.lab.Left.Run(t.Context(), "ip", "link", "set", r.lab.Left.Interface(), "address", "02:00:00:00:77:01")
	require.NoError(t, err, "%s", out)
	require.Equal(t, "02:00:00:00:77:01", r.device.Info().HardwareAddr.String())
	for _, l := range r.device.Links() {
		require.Equal(t, [6]byte{2, 0, 0, 0, 0x77, 1}, l.HardwareAddr())
	}

	for mtu, want := range map[int]int{1000: 1000, 1700: 1500} {
		r.change(r.lab.Left, func(links *netlink.Handle, device netlink.Link) error { return links.LinkSetMTU(device, mtu) })
		require.Equal(t, want, r.device.Info().MTU)
		require.Equal(t, want, l.MTU())
	}
	r.change(r.lab.Left, (*netlink.Handle).LinkSetDown)
	for _, name := range []string{"renamed", info.Interface} {
		r.change(r.lab.Left, func(links *netlink.Handle, device netlink.Link) error { return links.LinkSetName(device, name) })
		require.Equal(t, name, r.device.Info().Interface)
	}
}

// Busy polling is left off where the traffic has no NAPI instance to poll, which the first frame tells.
func TestBusyPollOnVeth(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{BusyPoll: true})
	accepted := r.device.Info().Queues[0].BusyPoll
	if before(t, KernelVersion{5, 11}) {
		require.False(t, accepted)
		require.Contains(t, r.log.String(), "busy polling is off")
	} else {
		require.True(t, accepted)
	}
	l := r.device.Links()[0]
	require.Zero(t, l.Poll(64, drop))
	require.Equal(t, accepted, l.Counters().FillKicks == 1)
	r.wantEcho(10, 100)
	l.Poll(64, drop)
	require.Equal(t, accepted && r.device.queues[0].socket.napi(), l.busyPoll)
}

func TestCloseGivesEverythingBack(t *testing.T) {
	r := newClosedRig(t, netlab.Options{Queues: 2})
	require.NoError(t, r.open(Config{}))
	require.NoError(t, r.device.Close())
	before := descriptors(t)
	for range 3 {
		require.NoError(t, r.open(Config{}))
		l := r.device.Links()[0]
		require.NoError(t, r.device.Close())
		require.NoError(t, r.device.Close(), "twice is fine")
		l.Wake()
		require.NotPanics(t, func() { r.device.Info() })
		_, err := r.device.Stats()
		require.ErrorIs(t, err, net.ErrClosed)
	}
	require.Equal(t, before, descriptors(t))
	require.Error(t, r.open(Config{Queues: []int{0, 7}}))
	require.Equal(t, before, descriptors(t), "a failed Open leaves nothing open")
}

// descriptors counts the process's open files.
func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestOpenUnknownInterface(t *testing.T) {
	r := newClosedRig(t, netlab.Options{})
	require.NoError(t, r.lab.Left.Do(func() error {
		_, err := Open(Config{Interface: "nosuch0"})
		require.ErrorIs(t, err, ErrGone)
		require.ErrorIs(t, err, unix.ENODEV)
		_, err = Open(Config{Interface: "lo"})
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, "choose an Ethernet interface")
		return nil
	}))
}

// Nothing on a frame's way allocates, the system calls included.
func TestNoAllocationsOnVeth(t *testing.T) {
	r := newRig(t, netlab.Options{}, Config{})
	conn := r.dial(7)
	l := r.device.Links()[0]
	payload := []byte("payload")
	input := func(frame []byte) { turn(frame); l.Send(frame) }
	frames := r.datagram(9, payload)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		_, _ = conn.Write(payload)
		_ = l.Wait(time.Second)
		l.Poll(64, input)
		if out := l.Alloc(); out != nil {
			l.Send(out[:copy(out, frames)])
		}
		l.Flush()
		l.Wake()
		_ = l.Wait(time.Second)
		_ = l.Wait(time.Millisecond)
	}))
	require.NotZero(t, l.Counters().RxFrames)
}
