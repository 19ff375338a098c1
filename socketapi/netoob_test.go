package socketapi_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	. "kitnet.dev/kit/socketapi"
)

// What QUIC and DNS libraries look for in a net.PacketConn.
var _ interface {
	net.PacketConn
	SyscallConn() (syscall.RawConn, error)
	SetReadBuffer(int) error
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	ReadBatch([]ipv4.Message, int) (int, error)
	WriteBatch([]ipv4.Message, int) (int, error)
} = (*UDPConn)(nil)

// batchOf is n messages with 64 bytes of room and some for out-of-band data.
func batchOf(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 64)}, make([]byte, 128)
	}
	return ms
}

// cmsg is a control message as cmsg(3) lays it out.
func cmsg(level, kind int, data ...byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// controls are the control messages in oob, by type.
func controls(t testing.TB, oob []byte) map[int32][]byte {
	t.Helper()
	ms, err := unix.ParseSocketControlMessage(oob)
	require.NoError(t, err)
	got := map[int32][]byte{}
	for _, m := range ms {
		require.EqualValues(t, unix.IPPROTO_IP, m.Header.Level)
		got[m.Header.Type] = m.Data
	}
	return got
}

// A message tells our address, its ECN bits and its TTL, in the form that x/net reads.
func TestReadMsgUDP(t *testing.T) {
	w := openStacks(t, true)
	for _, at := range []string{w.near.at(1, "0"), ":0"} {
		c := w.near.hearing("udp", at)
		to := netip.AddrPortFrom(w.near.cards[1], portOf(c.LocalAddr()))
		s := w.far.udp()
		w.far.setOpt(s, IPPROTO_IP, IP_TOS, 0xBB)
		w.far.setOpt(s, IPPROTO_IP, IP_TTL, 17)
		for _, oobRoom := range []int{0, 10, 24, 32, 56, 80, 1000} {
			w.far.sends(s, "0123456789", to)
			b, oob := make([]byte, 10-oobRoom%3), bytes.Repeat([]byte{0xEE}, oobRoom)
			n, oobn, flags, from, err := c.ReadMsgUDP(b, oob)
			require.NoError(t, err)
			require.Equal(t, len(b), n)
			require.Equal(t, w.far.cards[1].String(), from.IP.String())
			require.Equal(t, oobRoom%3 != 0, flags&unix.MSG_TRUNC != 0)
			require.Equal(t, oobRoom == 10, flags&unix.MSG_CTRUNC != 0, "no message has room")
			got := controls(t, oob[:oobn])
			require.Len(t, got, map[int]int{0: 0, 10: 0, 24: 1, 32: 1, 56: 2, 80: 3, 1000: 3}[oobRoom])
			if info := got[unix.IP_PKTINFO]; info != nil {
				want := to.Addr().As4()
				require.Equal(t, append(want[:], want[:]...), info[4:12])
			}
			if tos := got[unix.IP_TOS]; tos != nil {
				require.Equal(t, []byte{0xBB}, tos)
			}
			var m ipv4.ControlMessage
			require.NoError(t, m.Parse(oob[:oobn]))
			if oobRoom >= 80 {
				require.Equal(t, 17, m.TTL)
				require.True(t, m.Dst.Equal(to.Addr().AsSlice()))
			}
		}
		require.NoError(t, c.Close())
	}
}

// A card that the kernel has, too, is told by its index there.
func TestReadMsgUDPIndex(t *testing.T) {
	w := openStacks(t, true)
	c := w.near.hearing("udp", "127.0.0.1:0")
	lo, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	w.near.sends(w.near.udp(), "x", netip.MustParseAddrPort(c.LocalAddr().String()))
	oob := make([]byte, 100)
	_, oobn, _, _, err := c.ReadMsgUDP(make([]byte, 1), oob)
	require.NoError(t, err)
	require.EqualValues(t, lo.Index, binary.NativeEndian.Uint32(controls(t, oob[:oobn])[unix.IP_PKTINFO]))
}

// Out-of-band data sets ECN, TTL and the source for one message.
func TestWriteMsgUDP(t *testing.T) {
	near := newStack(1)
	w := joinStacks(t, true, near, newStack(2))
	second := w.near.addAddress(near, "10.0.0.77/24").As4()
	c := w.near.hearing("udp", ":0")
	ear := w.far.hearing("udp", w.far.at(0, "0"))
	to := ear.LocalAddr().(*net.UDPAddr)
	type heard struct {
		from     netip.Addr
		tos, ttl byte
	}
	first := netip.AddrFrom4(w.near.cards[0].As4())
	info := append(append(make([]byte, 4), second[:]...), 0, 0, 0, 0)
	for _, send := range []struct {
		oob  []byte
		want heard
	}{
		{nil, heard{first, 0, 64}},
		{cmsg(unix.IPPROTO_IP, unix.IP_TOS, 1), heard{first, 1, 64}},
		{cmsg(unix.IPPROTO_IP, unix.IP_TOS, int4(2)...), heard{first, 2, 64}},
		{cmsg(unix.IPPROTO_IP, unix.IP_TTL, int4(5)...), heard{first, 0, 5}},
		{cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, info...), heard{netip.AddrFrom4(second), 0, 64}},
		{cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12)...), heard{first, 0, 64}},
		{append(cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, info...), cmsg(unix.IPPROTO_IP, unix.IP_TOS, 3)...),
			heard{netip.AddrFrom4(second), 3, 64}},
		{cmsg(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, int4(1)...), heard{first, 0, 64}},
		{(&ipv4.ControlMessage{Src: net.IP(second[:])}).Marshal(), heard{netip.AddrFrom4(second), 0, 64}},
	} {
		n, oobn, err := c.WriteMsgUDP([]byte("x"), send.oob, to)
		require.NoError(t, err)
		require.Equal(t, []int{1, len(send.oob)}, []int{n, oobn})
		oob := make([]byte, 100)
		_, oobn, _, from, err := ear.ReadMsgUDPAddrPort(make([]byte, 1), oob)
		require.NoError(t, err)
		got := controls(t, oob[:oobn])
		require.Equal(t, send.want, heard{from.Addr(), got[unix.IP_TOS][0], got[unix.IP_TTL][0]})
	}
	foreign := w.far.cards[0].As4()
	for why, oob := range map[string][]byte{
		"another machine's address": cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(append(make([]byte, 4), foreign[:]...), 0, 0, 0, 0)...),
		"TTL 0":                     cmsg(unix.IPPROTO_IP, unix.IP_TTL, int4(0)...),
		"TTL 256":                   cmsg(unix.IPPROTO_IP, unix.IP_TTL, int4(256)...),
		"TTL of one byte":           cmsg(unix.IPPROTO_IP, unix.IP_TTL, 7),
		"an unknown type":           cmsg(unix.IPPROTO_IP, unix.IP_RETOPTS, int4(0)...),
		"an unknown type of UDP":    cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, int4(0)...),
		"a segment of four bytes":   cmsg(unix.IPPROTO_UDP, unix.UDP_SEGMENT, int4(100)...),
		"no whole header":           {1, 2, 3},
		"longer than it is":         {200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		_, _, err := c.WriteMsgUDP([]byte("x"), oob, to)
		require.Error(t, err, why)
		wantOpError(t, err, "write", "udp", EINVAL)
	}
}

// UDP_SEGMENT makes datagrams of one payload.
func TestSegments(t *testing.T) {
	w := openStacks(t, true)
	c, ear := w.near.hearing("udp", w.near.at(0, "0")), w.far.hearing("udp", w.far.at(0, "0"))
	to := ear.LocalAddr().(*net.UDPAddr).AddrPort()
	segment := func(n uint16) []byte {
		size := binary.NativeEndian.AppendUint16(nil, n)
		return append(cmsg(unix.IPPROTO_UDP, unix.UDP_SEGMENT, size...), cmsg(unix.IPPROTO_IP, unix.IP_TOS, 2)...)
	}
	text := []byte("0123456789abcdef")
	for size, want := range map[uint16][]string{
		5: {"01234", "56789", "abcde", "f"}, 8: {"01234567", "89abcdef"}, 16: {string(text)}, 1000: {string(text)}, 0: {string(text)},
	} {
		n, _, err := c.WriteMsgUDPAddrPort(text, segment(size), to)
		require.NoError(t, err)
		require.Equal(t, len(text), n)
		for _, part := range want {
			buf, oob := make([]byte, 100), make([]byte, 100)
			n, oobn, _, _, err := ear.ReadMsgUDPAddrPort(buf, oob)
			require.NoError(t, err)
			require.Equal(t, part, string(buf[:n]))
			require.Equal(t, []byte{2}, controls(t, oob[:oobn])[unix.IP_TOS])
		}
	}
	_, _, err := c.WriteMsgUDPAddrPort(make([]byte, 129), segment(1), to)
	wantOpError(t, err, "write", "udp", EINVAL)
}

// Batches have the form of x/net/ipv4, scattered buffers and out-of-band data included.
func TestNetBatch(t *testing.T) {
	w := openStacks(t, true)
	c := w.near.hearing("udp", ":0")
	ear := w.far.hearing("udp", w.far.at(0, "0"))
	to := ear.LocalAddr()
	ms := make([]ipv4.Message, 20)
	for i := range ms {
		text := []byte("message " + strconv.Itoa(i))
		ms[i] = ipv4.Message{Buffers: [][]byte{text}, Addr: to}
		switch i % 5 {
		case 3:
			ms[i].Buffers = [][]byte{text[:3], nil, text[3:]}
		case 4:
			ms[i].OOB = cmsg(unix.IPPROTO_IP, unix.IP_TOS, 1)
		}
	}
	for sent := 0; sent < len(ms); {
		n, err := c.WriteBatch(ms[sent:], 0)
		require.NoError(t, err)
		sent += n
	}
	in := batchOf(7)
	in[2].Buffers = [][]byte{make([]byte, 4), make([]byte, 2), make([]byte, 60)}
	for got := 0; got < len(ms); {
		in[0].Buffers = [][]byte{make([]byte, 64)}
		if got > 10 {
			in[0].Buffers = [][]byte{make([]byte, 3), make([]byte, 60)}
		}
		n, err := ear.ReadBatch(in, unix.MSG_WAITFORONE)
		require.NoError(t, err)
		require.Positive(t, n)
		for _, m := range in[:n] {
			all := bytes.Join(m.Buffers, nil)
			require.Equal(t, "message "+strconv.Itoa(got), string(all[:m.N]))
			require.Equal(t, w.near.cards[0].String(), m.Addr.(*net.UDPAddr).IP.String())
			want := byte(0)
			if got%5 == 4 {
				want = 1
			}
			require.Equal(t, []byte{want}, controls(t, m.OOB[:m.NN])[unix.IP_TOS])
			got++
		}
	}
	_, err := ear.ReadBatch(in, MSG_DONTWAIT)
	wantOpError(t, err, "read", "udp", EWOULDBLOCK)
	waits := make(chan error)
	go func() { _, err := ear.Read(make([]byte, 9)); waits <- err }()
	sleeping(t, "socketapi.(*UDPConn).receiveBlocked", 1)
	_, err = ear.ReadBatch(in, MSG_DONTWAIT)
	wantOpError(t, err, "read", "udp", EWOULDBLOCK)
	_, err = c.WriteTo([]byte("x"), to)
	require.NoError(t, err)
	require.NoError(t, <-waits)
	n, err := ear.ReadBatch(nil, 0)
	require.NoError(t, err)
	require.Zero(t, n)
	for _, call := range []func([]ipv4.Message, int) (int, error){ear.ReadBatch, ear.WriteBatch} {
		_, err = call(in, unix.MSG_PEEK)
		require.ErrorIs(t, err, EOPNOTSUPP)
	}
	w.near.sends(w.near.udp(), string(make([]byte, 100)), netip.AddrPortFrom(w.near.cards[0], portOf(c.LocalAddr())))
	in = batchOf(1)
	_, err = c.ReadBatch(in, 0)
	require.NoError(t, err)
	require.Equal(t, 64, in[0].N)
	require.NotZero(t, in[0].Flags&unix.MSG_TRUNC)

	// The first that can't be sent ends the batch, and is told where it is the first.
	good, bad := ipv4.Message{Buffers: [][]byte{[]byte("good")}, Addr: to}, ipv4.Message{Buffers: [][]byte{make([]byte, 65508)}, Addr: to}
	n, err = c.WriteBatch([]ipv4.Message{good, good, bad, good}, 0)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	for _, m := range []struct {
		ipv4.Message
		is error
	}{
		{bad, EMSGSIZE},
		{ipv4.Message{Buffers: good.Buffers, Addr: &net.TCPAddr{}}, EINVAL},
		{ipv4.Message{Buffers: good.Buffers, Addr: to, OOB: []byte{1}}, EINVAL},
	} {
		_, err = c.WriteBatch([]ipv4.Message{m.Message, good}, 0)
		wantOpError(t, err, "write", "udp", m.is)
	}
	var missing *net.AddrError
	_, err = c.WriteBatch([]ipv4.Message{{Buffers: good.Buffers}}, 0)
	require.ErrorAs(t, err, &missing)
	connected := w.near.calling(to)
	_, err = connected.WriteBatch([]ipv4.Message{good}, 0)
	require.ErrorIs(t, err, net.ErrWriteToConnected)
	n, err = connected.WriteBatch([]ipv4.Message{{Buffers: good.Buffers}, {Buffers: good.Buffers}}, 0)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	for range 4 {
		readsFrom(t, ear, "good")
	}
	require.NoError(t, ear.SetReadDeadline(time.Unix(1, 0)))
	_, err = ear.ReadBatch(in, 0)
	wantTimeout(t, err)
}
