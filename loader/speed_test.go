package loader

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// inject makes the right end send copies of a frame from inside the kernel, as fast as one core can (BPF_PROG_RUN with
// live frames on a program that redirects to the right end), on CPU 0 until stop is called.
func (r *rig) inject(frame []byte) (stop func()) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kit_inject", Type: ebpf.XDP, License: "Dual MIT/GPL", Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(r.lab.Right.Index())),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),
		},
	})
	require.NoError(r.t, err)
	var stopped atomic.Bool
	done := make(chan error, 1)
	go func() {
		done <- r.lab.Right.Do(func() error {
			pin(0)
			for !stopped.Load() {
				_, err := program.Run(&ebpf.RunOptions{
					Data: frame, Context: [6]uint32{1: uint32(len(frame))}, Repeat: 1 << 16,
					Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: 64,
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}()
	return func() {
		stopped.Store(true)
		require.NoError(r.t, <-done)
		require.NoError(r.t, program.Close())
	}
}

// sink makes the right end's driver drop all that arrives there.
func (r *rig) sink() {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kit_sink", Type: ebpf.XDP, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}, // XDP_DROP
	})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, program.Close()) })
	require.NoError(r.t, r.lab.Right.Do(func() error {
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: r.lab.Right.Index(), Flags: link.XDPDriverMode})
		if err == nil {
			r.t.Cleanup(func() { require.NoError(r.t, attached.Close()) })
		}
		return err
	}))
}

// pin keeps the calling goroutine, which must be locked to its thread, on one processor.
func pin(cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
}

// incoming is a UDP frame from the right end to ours.
func (r *rig) incoming(payload int) []byte {
	frame := r.datagram(4000, make([]byte, payload))
	turn(frame)
	return frame
}

// BenchmarkVeth is what a link does on a veth pair: receiving and answering 64-byte payloads that arrive as fast as the
// kernel can make them, spinning and sleeping, and sending into an interface that drops. One turn is one frame.
func BenchmarkVeth(b *testing.B) {
	cases := []struct {
		name  string
		sleep bool
		echo  bool
	}{{"receive/spin", false, false}, {"receive/sleep", true, false}, {"echo/spin", false, true}, {"echo/sleep", true, true}}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, netlab.Options{}, Config{})
			r.sink()
			l := r.device.Links()[0]
			stop := r.inject(r.incoming(64))
			defer stop()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			pin(1)
			var sum uint64
			look := func(frame []byte) { sum += uint64(frame[42]) }
			if c.echo {
				look = func(frame []byte) { turn(frame); l.Send(frame) }
			}
			b.ResetTimer()
			for n := 0; n < b.N; {
				got := l.Poll(64, look)
				n += got
				if c.echo {
					l.Flush()
				}
				if got == 0 && c.sleep {
					_ = l.Wait(time.Second)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
		})
	}
	b.Run("transmit", func(b *testing.B) {
		r := newRig(b, netlab.Options{}, Config{})
		r.sink()
		l := r.device.Links()[0]
		frame := r.datagram(9, make([]byte, 64))
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		pin(1)
		for n := 0; n < b.N; {
			for range 64 {
				out := l.Alloc()
				if out == nil {
					break
				}
				l.Send(out[:copy(out, frame)])
				n++
			}
			l.Flush()
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
	})
}
