package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// liveLab is a cable whose right end takes live frames into the kernel, and a target there.
func liveLab(t *testing.T) (*netlab.Lab, liveTarget) {
	lab := netlab.Test(t, netlab.Options{Neighbors: true, Right: netlab.Side{Offloads: netlab.GRO}})
	return lab, liveTarget{
		From: lab.Left, To: netip.AddrPortFrom(lab.Right.Addr(), 7777), ToMAC: lab.Right.HardwareAddr(),
		Payload: 64, Flows: 4, BasePort: 30000,
	}
}

func TestLiveFrame(t *testing.T) {
	_, target := liveLab(t)
	for _, payload := range []int{2, 19, 64, 1400} {
		target.Payload = payload
		frame := liveFrame(target)
		packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		require.Nil(t, packet.ErrorLayer())
		ip := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		require.Equal(t, "10.77.0.1", ip.SrcIP.String())
		require.Equal(t, "10.77.0.2", ip.DstIP.String())
		udp := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
		require.EqualValues(t, 7777, udp.DstPort)
		require.Len(t, udp.Payload, payload)

		// The checksum that gopacket computes is the frame's, with port 0 and with any other that the payload balances.
		for _, port := range []uint16{0, 1, 30000, 0xffff} {
			binary.BigEndian.PutUint16(frame[srcPortAt:], port)
			binary.BigEndian.PutUint16(frame[balanceAt:], ^port)
			packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			ip, udp := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4), packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
			sum, ipSum := udp.Checksum, ip.Checksum
			require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
			b := gopacket.NewSerializeBuffer()
			options := gopacket.SerializeOptions{ComputeChecksums: true}
			require.NoError(t, gopacket.SerializeLayers(b, options, ip, udp, gopacket.Payload(udp.Payload)))
			require.Equal(t, udp.Checksum, sum, "port %d", port)
			require.Equal(t, ip.Checksum, ipSum)
		}
	}
}

// The kernel's own receiver judges what the generator sends: addresses, checksums, flows, and how fast at most.
func TestLiveFramesArrive(t *testing.T) {
	lab, target := liveLab(t)
	server, err := lab.Right.ListenPacket("udp4", target.To.String())
	require.NoError(t, err)
	defer server.Close()
	g, err := newLive(target)
	require.NoError(t, err)
	defer func() { require.NoError(t, g.Close()) }()

	const rate = 20_000
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	var runErr error
	start := time.Now()
	wait.Go(func() { runErr = g.Run(ctx, rate) })
	ports := map[int]bool{}
	b := make([]byte, 2048)
	for range 400 {
		require.NoError(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, from, err := server.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, 64, n)
		ports[from.(*net.UDPAddr).Port] = true
	}
	cancel()
	wait.Wait()
	took := time.Since(start)
	require.NoError(t, runErr)
	require.Equal(t, map[int]bool{30000: true, 30001: true, 30002: true, 30003: true}, ports, "flows take turns")
	sent, err := g.Sent()
	require.NoError(t, err)
	require.GreaterOrEqual(t, sent, uint64(400))
	require.LessOrEqual(t, float64(sent), rate*took.Seconds()+paceSlack+1, "never faster than asked")
}

func TestLiveStopsAtOnce(t *testing.T) {
	_, target := liveLab(t)
	g, err := newLive(target)
	require.NoError(t, err)
	defer g.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, g.Run(ctx, 0), "a generator that is stopped before it begins sends nothing")
	sent, err := g.Sent()
	require.NoError(t, err)
	require.Zero(t, sent)
}

func TestSinkCounts(t *testing.T) {
	lab, _ := liveLab(t)
	from := netip.AddrPortFrom(lab.Right.Addr(), 7)
	s, err := newSink(lab.Left, from)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	_, err = newSink(lab.Left, from)
	require.ErrorContains(t, err, "attach kit_bench_sink", "one program an interface")

	receiver, err := lab.Left.ListenPacket("udp4", netip.AddrPortFrom(lab.Left.Addr(), 0).String())
	require.NoError(t, err)
	defer receiver.Close()
	send := func(port uint16, n int) {
		conn, err := lab.Right.ListenPacket("udp4", netip.AddrPortFrom(lab.Right.Addr(), port).String())
		require.NoError(t, err)
		defer conn.Close()
		for range n {
			_, err := conn.WriteTo([]byte("answer"), receiver.LocalAddr())
			require.NoError(t, err)
		}
	}
	send(7, 1000)
	send(8, 1)
	// What comes from another port passes, and the wire keeps its order.
	require.NoError(t, receiver.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, 16)
	_, sender, err := receiver.ReadFrom(b)
	require.NoError(t, err)
	require.Equal(t, 8, sender.(*net.UDPAddr).Port)
	n, err := s.Count()
	require.NoError(t, err)
	require.EqualValues(t, 1000, n)
}

// A sink of many sockets counts what comes from any of them, and nothing from beside them.
func TestSinkOfManySockets(t *testing.T) {
	lab, target := liveLab(t)
	first := netip.MustParseAddr("10.77.0.2")
	match := datagramMatch{at: netip.AddrPortFrom(first, 7), addrAt: sourceAddrAt, portAt: srcPortAt, sockets: 2 * socketsPerAddr}
	s, err := newSinkOf(lab.Left, match)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	from := func(addr string, port uint16) uint32 {
		frame := udpFrame(target.ToMAC, target.ToMAC, netip.AddrPortFrom(netip.MustParseAddr(addr), port), target.To, make([]byte, 64))
		verdict, _, err := s.attached.program.Test(frame)
		require.NoError(t, err)
		return verdict
	}
	const last = socketBasePort + socketsPerAddr - 1
	for _, addr := range []string{"10.77.0.2", "10.77.0.3"} {
		require.EqualValues(t, xdpDrop, from(addr, socketBasePort))
		require.EqualValues(t, xdpDrop, from(addr, last))
		for _, port := range []uint16{0, 7, socketBasePort - 1, last + 1, 0xffff} {
			require.EqualValues(t, xdpPass, from(addr, port), "%s:%d", addr, port)
		}
	}
	require.EqualValues(t, xdpPass, from("10.77.0.1", socketBasePort))
	require.EqualValues(t, xdpPass, from("10.77.0.4", socketBasePort))
	n, err := s.Count()
	require.NoError(t, err)
	require.EqualValues(t, 4, n)
}

// Who asks many sockets asks each in its turn, and takes an answer from no other.
func TestAskManySockets(t *testing.T) {
	lab, _ := liveLab(t)
	client := task{Address: netip.AddrPortFrom(lab.Right.Addr(), 7), Sockets: 3}
	var conns []net.PacketConn
	asked := make(chan int, 16)
	for n := range client.Sockets {
		conn, err := lab.Right.ListenPacket("udp4", nthAddress(client, n).String())
		require.NoError(t, err)
		defer conn.Close()
		conns = append(conns, conn)
	}
	for n := range conns {
		go func() {
			b := make([]byte, 64)
			for {
				length, from, err := conns[n].ReadFrom(b)
				if err != nil {
					return
				}
				asked <- n
				_, _ = conns[n/2*2].WriteTo(b[:length], from) // the second's answers come from the first
			}
		}()
	}
	c := asker{out: make([]byte, 8), in: make([]byte, 8)}
	for n := range client.Sockets {
		c.to = append(c.to, sockaddrOf(nthAddress(client, n)))
	}
	require.NoError(t, lab.Left.Do(func() (err error) { c.fd, err = datagramSocket(client); return err }))
	defer unix.Close(c.fd)
	for _, want := range []struct {
		socket int
		err    string
	}{{0, ""}, {2, ""}, {1, "an answer came from another socket"}} {
		_, ok, err := c.ask()
		require.Equal(t, want.socket, <-asked)
		require.Equal(t, want.err == "", ok)
		if want.err != "" {
			require.ErrorContains(t, err, want.err)
		}
	}
}

func TestTurnRound(t *testing.T) {
	_, target := liveLab(t)
	frame := liveFrame(target)
	binary.BigEndian.PutUint16(frame[srcPortAt:], 30000)
	binary.BigEndian.PutUint16(frame[balanceAt:], ^uint16(30000))
	want := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	turnRound(frame)
	got := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	require.Equal(t, want.LinkLayer().LinkFlow().Reverse(), got.LinkLayer().LinkFlow())
	require.Equal(t, want.NetworkLayer().NetworkFlow().Reverse(), got.NetworkLayer().NetworkFlow())
	require.Equal(t, want.TransportLayer().TransportFlow().Reverse(), got.TransportLayer().TransportFlow())
	require.Equal(t, want.ApplicationLayer().Payload(), got.ApplicationLayer().Payload())
}

// Frames to many sockets have their right ports, addresses and checksums, and each socket gets as many. Here the program runs on
// one frame after another.
func TestLiveFramesToManySockets(t *testing.T) {
	_, target := liveLab(t)
	target.Sockets, target.To = socketsPerAddr+3, netip.AddrPortFrom(netip.MustParseAddr("10.77.255.254"), 7)
	g, err := newLive(target)
	require.NoError(t, err)
	defer g.Close()
	seen := map[string]bool{}
	for range 20 {
		_, frame, err := g.program.Test(g.frame)
		require.NoError(t, err)
		packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		ip, udp := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4), packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
		seen[fmt.Sprintf("%s:%d", ip.DstIP, udp.DstPort)] = true
		sum, ipSum := udp.Checksum, ip.Checksum
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
		options := gopacket.SerializeOptions{ComputeChecksums: true}
		require.NoError(t, gopacket.SerializeLayers(gopacket.NewSerializeBuffer(), options, ip, udp, gopacket.Payload(udp.Payload)))
		require.Equal(t, udp.Checksum, sum)
		require.Equal(t, ip.Checksum, ipSum)
	}
	want := map[string]bool{}
	for n := range 20 {
		want[socketAt(target.To.Addr(), n*socketStride%target.Sockets).String()] = true
	}
	require.Equal(t, want, seen)
	require.Equal(t, "10.77.255.255:10002", socketAt(target.To.Addr(), socketsPerAddr+2).String())
}

// What raw AF_XDP reads of a frame decides whether it counts.
func TestReader(t *testing.T) {
	_, target := liveLab(t)
	mine := reader{address: target.To.Addr().As4(), port: target.To.Port()}
	frame := liveFrame(target)
	require.True(t, mine.read(frame))
	require.False(t, mine.read(frame[:headersLen]), "no payload")
	require.False(t, mine.read(frame[:len(frame)-1]), "shorter than UDP says")
	for _, at := range []int{etherLen - 2, etherLen, protocolAt, destAddrAt + 3, destPortAt + 1} {
		other := bytes.Clone(frame)
		other[at]++
		require.False(t, mine.read(other), "byte %d", at)
	}
}

// A program that sends frames back exchanges what turnRound does, and leaves the generator's frames as they were to be: each is
// answered, however often its memory is used.
func TestXDPSendsBack(t *testing.T) {
	lab, target := liveLab(t)
	count, err := newCount("kit_bench_test")
	require.NoError(t, err)
	defer count.Close()
	code := countProgram(count, datagramMatch{at: target.To, addrAt: destAddrAt, portAt: destPortAt}, sendBack())
	x, err := attachXDP(lab.Right, "kit_bench_test", code)
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	frame := liveFrame(target)
	verdict, got, err := x.program.Test(frame)
	require.NoError(t, err)
	require.EqualValues(t, xdpTX, verdict)
	want := bytes.Clone(frame)
	turnRound(want)
	require.Equal(t, want, got)
	frame[destPortAt]++
	verdict, _, err = x.program.Test(frame)
	require.NoError(t, err)
	require.EqualValues(t, xdpPass, verdict)

	s, err := newSink(lab.Left, target.To)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	g, err := newLive(target)
	require.NoError(t, err)
	defer func() { require.NoError(t, g.Close()) }()
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	var runErr error
	wait.Go(func() { runErr = g.Run(ctx, 20_000) })
	answered := func() bool { n, err := s.Count(); return err == nil && n > 10*liveBatch }
	require.Eventually(t, answered, 10*time.Second, time.Millisecond)
	cancel()
	wait.Wait()
	require.NoError(t, runErr)
}
