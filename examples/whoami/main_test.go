package main

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/kittest"
)

// script is what the service does, wherever it runs.
const script = `
	> 10.77.0.9.4000 > 10.77.0.2.3478: udp "who am I?"
	< 10.77.0.2.3478 > 10.77.0.9.4000: udp "10.77.0.9:4000\n"
	> 10.77.0.9.65535 > 10.77.0.2.3478: udp ""               # the question may be shorter than the answer
	< 10.77.0.2.3478 > 10.77.0.9.65535: udp "10.77.0.9:65535\n"
	> 10.77.0.9.4001 > 10.77.0.2.3478: udp 1400
	< 10.77.0.2.3478 > 10.77.0.9.4001: udp "10.77.0.9:4001\n"
	> 10.77.0.9.0 > 10.77.0.2.3478: udp "no answer wanted"   # RFC 768
	silence
`

func service() netip.AddrPort { return netip.AddrPortFrom(kittest.HostAddr.Addr(), 3478) }

// Without root, in memory and in no time.
func TestInMemory(t *testing.T) {
	h := kittest.NewHost(t, kittest.HostConfig{})
	local := service()
	require.NoError(t, serve(h.Kit, &local))
	h.Peer.Play(script)
}

// The same where every other question is lost and the answers take their time.
func TestOnABadPath(t *testing.T) {
	h := kittest.NewHost(t, kittest.HostConfig{Path: kittest.Path{
		Out: kittest.Faults{Loss: 0.5}, Back: kittest.Faults{Latency: 30 * time.Millisecond}, Seed: 1,
	}})
	local := service()
	require.NoError(t, serve(h.Kit, &local))
	answers := 0
	for range 100 {
		h.Peer.Sends(`10.77.0.9.4000 > 10.77.0.2.3478: udp "who am I?"`)
		h.Peer.WantsSilence("an answer takes 30 ms")
		h.Wait(30 * time.Millisecond)
		if h.Peer.Takes() != nil {
			answers++
		}
	}
	require.InDelta(t, 50, answers, 20)
}

// With root, on a veth pair, with the BPF program beside kit's: what kit takes does not pass it.
func TestOnAVethPair(t *testing.T) {
	pair := kittest.NewPair(t, kittest.PairConfig{})
	var beside portsObjects
	require.NoError(t, loadPortsObjects(&beside, nil))
	defer beside.Close()
	var attached link.Link
	var tooOld error
	pair.Right.Do(func() (err error) {
		if attached, err = attach(&beside, pair.Right.Interface()); errors.Is(err, ebpf.ErrNotSupported) {
			tooOld, err = err, nil
		}
		return err
	})
	if tooOld != nil {
		t.Skipf("the kernel has no tcx: %v", tooOld)
	}
	defer attached.Close()
	got := func(port uint16) uint64 {
		n, err := passed(&beside, port)
		require.NoError(t, err)
		return n
	}

	k := pair.Right.Open(kit.Config{})
	local := service()
	require.NoError(t, serve(k.Kit, &local))
	peer := pair.Peer()
	peer.Play(script)
	require.Zero(t, got(3478), "kit took them all")

	peer.Play(`
		> 10.77.0.9.4000 > 10.77.0.2.3479: udp "to the kernel"
		> 10.77.0.9.4000 > 10.77.0.2.3479: udp "and again"
	`)
	require.Eventually(t, func() bool { return got(3479) == 2 }, 5*time.Second, time.Millisecond)
	require.Zero(t, got(3478))

	require.NoError(t, k.Close())
	peer.Sends(`10.77.0.9.4000 > 10.77.0.2.3478: udp "is kit gone?"`)
	require.Eventually(t, func() bool { return got(3478) == 1 }, 5*time.Second, time.Millisecond)
}
