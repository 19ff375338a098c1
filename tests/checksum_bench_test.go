package tests

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/internal/netlab"
	"kitnet.dev/kit/loader"
)

// BenchmarkTxChecksum sends datagrams over a veth pair whose other end drops them at once, with checksums computed here and left
// to the device, which itself leaves them or has the kernel finish them. Frames, no bundles: the pair has two queues. A turn is a
// datagram; run it several times rather than longer, the machine's moods are what differs.
func BenchmarkTxChecksum(b *testing.B) {
	for _, payload := range []int{64, offloadLeast, 1472} {
		for _, c := range []struct {
			name     string
			mode     loader.ChecksumMode
			offloads netlab.Offload
		}{
			{"here", loader.ChecksumOff, netlab.TxChecksum},
			{"left", loader.ChecksumOn, netlab.TxChecksum},
			{"kernel", loader.ChecksumOn, 0},
		} {
			b.Run(fmt.Sprintf("payload=%d/%s", payload, c.name), func(b *testing.B) {
				lab := netlab.Test(b, netlab.Options{Queues: 2, Right: netlab.Side{Offloads: c.offloads}, Neighbors: true})
				dropAll(b, lab.Left)
				cfg := kit.Config{Interface: lab.Right.Interface(), Queues: []int{0}, TxChecksum: c.mode, Attach: loader.AttachNative}
				var k *kit.Kit
				require.NoError(b, lab.Right.Do(func() (err error) {
					k, err = kit.Open(cfg)
					return err
				}))
				defer k.Close()
				s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
				require.NoError(b, err)
				require.NoError(b, k.Connect(s, netip.AddrPortFrom(lab.Left.Addr(), 9)))
				messages := make([]kit.Message, 64)
				for i := range messages {
					messages[i].Buf = make([]byte, payload)
				}
				b.ResetTimer()
				for n := 0; n < b.N; {
					sent, err := k.WriteBatch(s, messages, 0)
					require.NoError(b, err)
					n += sent
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
				b.StopTimer()
				require.Zero(b, k.LinkCounters()[0].Bundles)
			})
		}
	}
}

// dropAll has the driver of a namespace's first end drop all that arrives there.
func dropAll(b *testing.B, at *netlab.Namespace) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kit_drop", Type: ebpf.XDP, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}, // XDP_DROP
	})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, program.Close()) })
	require.NoError(b, at.Do(func() error {
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: at.Index(), Flags: link.XDPDriverMode})
		if err == nil {
			b.Cleanup(func() { require.NoError(b, attached.Close()) })
		}
		return err
	}))
}
