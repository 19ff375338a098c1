package loader

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/netlab"
)

// Whatever is sent has its metadata right before it, in its own chunk, and says whether a checksum is left to the card.
func TestMetadataLiesBeforeTheFrame(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			l, k := newFake(t, fakeConfig{start: start, offload: true})
			k.keep = true
			require.True(t, l.TxChecksum())
			partial := partialSum{34, 6}
			send := func(frame []byte, asked partialSum) {
				k.asked, k.sent = nil, nil
				want := bytes.Clone(frame)
				if asked == (partialSum{}) {
					require.True(t, l.Send(frame))
				} else {
					require.True(t, l.SendPartial(frame, int(asked.start), int(asked.offset)))
				}
				l.Flush()
				require.Equal(t, []partialSum{asked}, k.asked)
				require.Equal(t, [][]byte{want}, k.sent)
			}
			for round := range 100 {
				asked := []partialSum{partial, {}}[round&1]
				frame := l.Alloc()
				require.Len(t, frame, 1500+frameExtra)
				send(frame[:copy(frame, testFrame(60+14*round, round))], asked)
				for _, n := range []int{60, shortFrame, shortFrame + 1, 1518} { // answers by a copy, and in place
					require.True(t, k.deliver(testFrame(n, round)))
					require.Equal(t, 1, l.Poll(1, func(frame []byte) { send(frame, asked) }))
				}
				k.wantWhole(l)
			}
			require.EqualValues(t, 5*50, l.Counters().TxPartial)
			require.EqualValues(t, 5*100, l.Counters().TxFrames)
		})
	}
}

// The longest frames that plan lets have metadata fill their chunks, and the neighbours' bytes stay as they are.
func TestMetadataOverlapsNothing(t *testing.T) {
	const mtu = 2048 - txLead - frameExtra
	g, err := (&Config{FrameSize: 2048}).plan(mtu)
	require.NoError(t, err)
	require.True(t, g.metadataFits())
	g.mtu++
	require.False(t, g.metadataFits())

	l, k := newFake(t, fakeConfig{offload: true, mtu: mtu})
	k.keep = true
	var frames [][]byte
	for i := range 16 {
		frames = append(frames, l.Alloc())
		require.Len(t, frames[i], 2048-txLead)
		copy(frames[i], testFrame(2048-txLead, i))
	}
	for i := 15; i >= 0; i-- {
		require.True(t, l.SendPartial(frames[i], 14+20, 16))
	}
	l.Flush()
	for i, frame := range k.sent {
		require.Equal(t, testFrame(2048-txLead, 15-i), frame)
	}
	require.Len(t, k.sent, 16)
}

// A frame that the card could not sum is refused and counted: in copy mode the kernel would try it again for ever.
func TestRefusedPartialFrames(t *testing.T) {
	l, k := newFake(t, fakeConfig{offload: true})
	require.False(t, l.SendPartial(l.Alloc()[:60], 53, 6), "the field would end behind the frame")
	require.True(t, l.SendPartial(l.Alloc()[:60], 52, 6))
	require.True(t, k.deliver(testFrame(60, 1)))
	l.Poll(1, func(frame []byte) {
		require.False(t, l.SendPartial(frame, 34, 25))
		require.True(t, l.SendPartial(frame, 34, 24), "a refused lent frame stays lent")
	})
	low := k.umem.memory[*k.fill.addr(k.fill.own)&^k.umem.chunkMask:]
	copy(low[16:], testFrame(300, 1))
	d := *k.fill.addr(k.fill.own)&^k.umem.chunkMask + 16
	k.describe(unix.XDPDesc{Addr: d, Len: 300})
	l.Poll(1, func(frame []byte) { require.False(t, l.Send(frame), "no room for metadata") })
	l.Flush()
	require.EqualValues(t, 3, l.Counters().TxInvalid)
	require.EqualValues(t, 2, l.Counters().TxPartial)
	k.wantWhole(l)

	l, k = newFake(t, fakeConfig{})
	require.False(t, l.TxChecksum())
	require.False(t, l.SendPartial(l.Alloc()[:60], 34, 6), "the packet memory has no metadata")
	require.EqualValues(t, 1, l.Counters().TxInvalid)
	require.Zero(t, l.Counters().TxPartial)
	k.wantWhole(l)
}

// An answer in a frame that came in several buffers is asked for as well.
func TestPartialAnswerToJoinedFrame(t *testing.T) {
	l, k := newFake(t, fakeConfig{offload: true, mtu: 1900, joins: true})
	k.keep = true
	require.True(t, k.deliver(testFrame(1850, 3)))
	require.Equal(t, 1, l.Poll(2, func(frame []byte) { require.True(t, l.SendPartial(frame, 34, 6)) }))
	l.Flush()
	require.Equal(t, [][]byte{testFrame(1850, 3)}, k.sent)
	require.Equal(t, []partialSum{{34, 6}}, k.asked)
}

func TestOffloadModes(t *testing.T) {
	zero, copySG, copies := bindMode{zeroCopy: true}, bindMode{scatter: true}, bindMode{}
	with := func(m bindMode) bindMode { m.offload = true; return m }
	usual, card := []bindMode{zero, copySG, copies}, XDPFeatures{Known: true, ZeroCopy: true, TxChecksum: true}
	without := card
	without.TxChecksum = false
	for _, c := range []struct {
		name   string
		config Config
		mtu    int
		x      XDPFeatures
		modes  []bindMode
		want   []bindMode
		says   string
	}{
		{"the card sums", Config{}, 1500, card, usual, []bindMode{with(zero), zero, copySG, copies}, ""},
		{"the card does not", Config{}, 1500, without, usual, usual, ""},
		{"an old kernel does not say", Config{}, 1500, XDPFeatures{}, usual, usual, ""},
		{"copy mode", Config{Copy: CopyAlways}, 1500, card, []bindMode{copySG, copies}, []bindMode{copySG, copies}, ""},
		{"off", Config{TxChecksum: ChecksumOff}, 1500, card, usual, usual, ""},
		{"no room", Config{}, 4078, card, usual, usual, ""},
		{"on", Config{TxChecksum: ChecksumOn}, 1500, card, usual, []bindMode{with(zero), with(copySG), with(copies)}, ""},
		{"on, the card does not", Config{TxChecksum: ChecksumOn}, 1500, without, usual, []bindMode{with(copySG), with(copies)}, ""},
		{"on, the card does not, zero-copy by request", Config{TxChecksum: ChecksumOn, Copy: CopyZero, Interface: "eth0"}, 1500, without,
			[]bindMode{zero}, nil, "the driver of eth0 computes no checksums with zero-copy, which was asked for; use copy mode"},
		{"on, no room", Config{TxChecksum: ChecksumOn}, 4078, card, usual, nil, "an MTU of at most 4014"},
		{"on, jumbo", Config{TxChecksum: ChecksumOn}, 9000, card, usual, nil, "do not fit into 4096"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := c.config.plan(c.mtu)
			require.NoError(t, err)
			got, err := c.config.offload(c.modes, g, &c.x)
			if c.says != "" {
				require.ErrorIs(t, err, ErrNoChecksum)
				require.ErrorContains(t, err, c.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	require.Equal(t, []bindMode{zero, copySG, copies}, usual, "the list that was given is left alone")
}

// On veth, in copy mode, the kernel finishes what was left to the card: its own sockets take the datagrams, short and long,
// made here and answered in place, whether veth itself would leave checksums unfinished or not.
func TestChecksumsLeftToVeth(t *testing.T) {
	for name, offloads := range map[string]netlab.Offload{"the kernel sums": 0, "veth sums": netlab.TxChecksum} {
		t.Run(name, func(t *testing.T) {
			r := newClosedRig(t, netlab.Options{Left: netlab.Side{Offloads: offloads}})
			if err := r.open(Config{TxChecksum: ChecksumOn, RingSize: 64}); before(t, metadataKernel) {
				require.ErrorIs(t, err, ErrNoChecksum)
				require.ErrorContains(t, err, "set the TX checksum to auto or off")
				require.NoError(t, r.open(Config{RingSize: 64}))
				require.False(t, r.device.Info().Queues[0].TxChecksum)
				return
			}
			require.True(t, r.device.Info().Queues[0].TxChecksum)
			require.Contains(t, r.log.String(), "TX checksum offload")
			l := r.device.Links()[0]
			conn := r.dial(7)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			buffer := make([]byte, 2048)
			for i := range 300 {
				payload := testFrame(1+i*1471/299, i)
				_, err := conn.Write(payload)
				require.NoError(t, err)
				r.receive(1, func(l *Link, frame []byte) {
					turn(frame)
					setPartial(frame)
					copied := l.Alloc()
					require.True(t, l.SendPartial(copied[:copy(copied, frame)], 34, 6))
					require.True(t, l.SendPartial(frame, 34, 6))
				})
				for range 2 {
					n, err := conn.Read(buffer)
					require.NoError(t, err)
					require.Equal(t, payload, buffer[:n])
				}
			}
			r.wantEcho(100, 1472) // whole checksums stay what they are
			require.EqualValues(t, 600, l.Counters().TxPartial)
			stats, err := r.device.Stats()
			require.NoError(t, err)
			require.Zero(t, stats[0].TxInvalid)
			require.Zero(t, l.Counters().KickFailed)
		})
	}
}

// setPartial writes the pseudo-header's sum into the checksum field of a UDP frame.
func setPartial(frame []byte) {
	binary.BigEndian.PutUint16(frame[40:], pseudoSum(frame, unix.IPPROTO_UDP, int(binary.BigEndian.Uint16(frame[38:]))))
}

// What can't be had is refused with what to do, or done without, as was asked.
func TestChecksumsThatVethRefuses(t *testing.T) {
	for _, c := range []struct {
		config Config
		mtu    int
		says   string
	}{
		{Config{TxChecksum: ChecksumOn, Copy: CopyZero}, 1500, "computes no checksums with zero-copy"},
		{Config{TxChecksum: ChecksumOn}, 9000, "use a frame size of 4096, an MTU of at most 4014, or the TX checksum auto"},
		{Config{TxChecksum: ChecksumAuto}, 1500, ""},
		{Config{TxChecksum: ChecksumOff}, 1500, ""},
	} {
		r := newClosedRig(t, netlab.Options{MTU: c.mtu})
		err := r.open(c.config)
		if c.mtu > largeFrame && before(t, scatterKernel) {
			require.ErrorIs(t, err, ErrMTU)
			continue
		}
		if c.says != "" {
			require.ErrorIs(t, err, ErrNoChecksum)
			require.ErrorContains(t, err, c.says)
			continue
		}
		require.NoError(t, err)
		require.False(t, r.device.Info().Queues[0].TxChecksum, "veth has no zero-copy")
	}
}
