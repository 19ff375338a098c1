package tests

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack/wire"
)

// offloadLeast is the least payload whose checksum is left to the card, as package stack has it.
const offloadLeast = 256

// Checksums left to the card arrive unfinished where veth leaves them so, and right where the kernel finishes them because
// the device does not; the kernel's sockets take both. Nothing is left to a card that was not to be, or that sums no such packet.
func TestTxChecksum(t *testing.T) {
	for _, c := range []struct {
		mode     loader.ChecksumMode
		offloads netlab.Offload // of kit's end
		left     bool           // to the card
		arrives  bool           // unfinished
	}{
		{loader.ChecksumOn, netlab.TxChecksum, true, true},
		{loader.ChecksumOn, 0, true, false},
		{loader.ChecksumAuto, netlab.TxChecksum, false, false},
		{loader.ChecksumOff, netlab.TxChecksum, false, false},
	} {
		t.Run(fmt.Sprintf("%v, offloads %b", c.mode, c.offloads), func(t *testing.T) {
			lab := netlab.Test(t, netlab.Options{Right: netlab.Side{Offloads: c.offloads}, Left: netlab.Side{Offloads: netlab.TxChecksum}})
			cfg := kit.Config{Addresses: []netip.Prefix{ownedAddr}, TxChecksum: c.mode}
			if facts, err := loader.Probe(""); err != nil || c.left && facts.Kernel.Before(loader.KernelVersion{Major: 6, Minor: 11}) {
				require.NoError(t, err)
				wantRefused(t, lab, cfg, "it needs Linux 6.11: set the TX checksum to auto or off")
				return
			}
			k := open(t, lab, cfg)
			require.Equal(t, c.left, k.Device().Info().Queues[0].TxChecksum)
			ear, err := lab.Left.Hear(5 * time.Second)
			require.NoError(t, err)
			defer ear.Close()

			want := speak(t, lab, k)
			var unfinished, long int
			for range want {
				h := hearPacket(t, ear)
				if h.Partial {
					unfinished++
				}
				if payload := checkSum(t, h); payload >= offloadLeast {
					long++
					require.Equal(t, c.arrives, h.Partial, "%d bytes of payload", payload)
				}
			}
			require.Greater(t, long, 100)
			if !c.arrives {
				require.Zero(t, unfinished)
			}
			counters := k.LinkCounters()[0]
			if c.left {
				require.EqualValues(t, long+shortEchoes, counters.TxPartial, "an echo of what came unfinished is left to the card, however short")
			} else {
				require.Zero(t, counters.TxPartial)
			}
			require.Zero(t, counters.TxInvalid)
			require.Zero(t, counters.KickFailed)
		})
	}
}

// shortEchoes is how many short datagrams speak has echoed.
const shortEchoes = 3

// speak has kit send datagrams, segments, answers and fragments, none in bundles, to the left end's kernel, which must take
// them; it returns how many UDP and TCP packets with payload those are.
func speak(t *testing.T, lab *netlab.Lab, k *kit.Kit) (packets int) {
	to := netip.AddrPortFrom(lab.Left.Addr(), 9)
	sink, err := lab.Left.ListenPacket("udp4", to.String())
	require.NoError(t, err)
	defer sink.Close()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	buf := make([]byte, 1<<16)
	for _, n := range lengths() {
		content, _ := seeded(n, uint64(n))
		_, err := k.SendTo(s, content, 0, to)
		require.NoError(t, err)
		require.NoError(t, sink.SetReadDeadline(time.Now().Add(5*time.Second)))
		got, _, err := sink.ReadFrom(buf)
		require.NoError(t, err, "%d bytes", n)
		require.Equal(t, content, buf[:got])
		packets += max(1, (n+8+1479)/1480)
	}
	addr := echo(t, k).String()
	for _, n := range append(lengths(), make([]int, shortEchoes-2)...) { // lengths has two that are short
		content, _ := seeded(n, uint64(n))
		require.Equal(t, content, exchange(t, lab.Left, addr, content))
		packets += max(1, (n+8+1479)/1480)
	}

	var l net.Listener
	require.NoError(t, lab.Left.Do(func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(lab.Left.Addr(), 10).String())
		return err
	}))
	defer l.Close()
	c, err := k.Net().Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	peer, err := l.Accept()
	require.NoError(t, err)
	defer peer.Close()
	for _, n := range lengths() {
		if n > 1400 || n == 0 {
			continue
		}
		content, _ := seeded(n, uint64(n))
		_, err := c.Write(content)
		require.NoError(t, err)
		_, err = io.ReadFull(peer, buf[:n])
		require.NoError(t, err)
		require.Equal(t, content, buf[:n])
		packets++
	}
	require.NoError(t, c.Close())
	ping(t, lab.Left, "-c", "2", "-i", "0.01", "-s", "1400", ownedAddr.Addr().String())
	return packets
}

// lengths are payloads: two short ones, some about the borders, and one for fragments.
func lengths() []int {
	list := []int{0, 100, offloadLeast, offloadLeast + 1, 1399, 1400, 1471, 1472, 3000}
	for n := range 30 {
		list = append(list, offloadLeast+2+37*n)
	}
	return list
}

// hearPacket is the next UDP packet, or TCP packet with payload, from kit.
func hearPacket(t *testing.T, ear *netlab.Ear) netlab.Heard {
	for {
		h, err := ear.Next()
		require.NoError(t, err)
		p, err := wire.ParseIPv4(h.Frame[wire.EthernetLen:])
		switch {
		case err != nil || p.Src().Netip() != ownedAddr.Addr() || p.Protocol() == wire.ProtocolICMP:
			require.False(t, h.Partial)
			continue
		case p.Protocol() == wire.ProtocolTCP:
			s, err := wire.ParseTCP(p.Payload())
			require.NoError(t, err)
			if len(s.Payload()) == 0 {
				require.False(t, h.Partial, "a segment without payload is not worth it")
				continue
			}
		}
		return h
	}
}

// checkSum wants the checksum that h says there is, and returns the length of the payload; 0 for a fragment.
func checkSum(t *testing.T, h netlab.Heard) int {
	p, err := wire.ParseIPv4(h.Frame[wire.EthernetLen:])
	require.NoError(t, err)
	if p.IsFragment() {
		require.False(t, h.Partial)
		return 0
	}
	want := wire.ChecksumOK
	if h.Partial {
		want = wire.ChecksumPartial
	}
	if p.Protocol() == wire.ProtocolTCP {
		s, err := wire.ParseTCP(p.Payload())
		require.NoError(t, err)
		require.Equal(t, want, s.ChecksumState(p.Src(), p.Dst()))
		return len(s.Payload())
	}
	u, err := wire.ParseUDP(p.Payload())
	require.NoError(t, err)
	require.Equal(t, want, u.ChecksumState(p.Src(), p.Dst()))
	return len(u.Payload())
}

// What can't be had is an error that says what to do.
func TestTxChecksumRefused(t *testing.T) {
	lab := netlab.Test(t, netlab.Options{})
	wantRefused(t, lab, kit.Config{
		Addresses: []netip.Prefix{ownedAddr}, TxChecksum: loader.ChecksumOn, Copy: loader.CopyZero,
	}, "use copy mode, or the TX checksum auto")
}

func wantRefused(t *testing.T, lab *netlab.Lab, cfg kit.Config, says string) {
	t.Helper()
	cfg.Interface = lab.Right.Interface()
	err := lab.Right.Do(func() error {
		_, err := kit.Open(cfg)
		return err
	})
	require.ErrorIs(t, err, loader.ErrNoChecksum)
	require.ErrorContains(t, err, says)
}
