package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// A talk is a TCP connection of the host with the peer, who is played by the script. Segments are written as packetdrill does:
//
//	S 0:0 win 65535 mss 1460        flags, sequence numbers from:to, and what else is of interest
//	P. 1:6 ack 1
//
// Numbers count from the SYN of whoever sends them. A payload is the piece of pattern that belongs at its place, in both directions.
type talk struct {
	h        *host
	queue    int // where the peer's segments arrive and the host's are wanted
	ip       packet
	hostPort uint16
	peerPort uint16
	peerISS  wire.Seq
	hostISS  wire.Seq // known from the host's first SYN on
	win      uint16   // of what the peer sends
	knows    bool     // hostISS
}

// talk makes the peer's end of a connection between these ports.
func (h *host) talk(hostPort, peerPort uint16) *talk {
	return &talk{h: h, hostPort: hostPort, peerPort: peerPort, peerISS: 1_000_000, win: 65535}
}

// A segment says what a segment for the script to send looks like.
type segment struct {
	sport, dport uint16
	seq, ack     wire.Seq
	flags        wire.TCPFlags
	win, urg     uint16
	options      []byte
	payload      []byte
}

// tcp makes a frame with a segment.
func (p packet) tcp(s segment) []byte {
	p = p.filled()
	for len(s.options)%4 != 0 {
		s.options = append(s.options, 1)
	}
	n := wire.TCPLen + len(s.options)
	b := make([]byte, n, n+len(s.payload))
	binary.BigEndian.PutUint16(b, s.sport)
	binary.BigEndian.PutUint16(b[2:], s.dport)
	binary.BigEndian.PutUint32(b[4:], uint32(s.seq))
	binary.BigEndian.PutUint32(b[8:], uint32(s.ack))
	b[12], b[13] = byte(n/4<<4), byte(s.flags)
	binary.BigEndian.PutUint16(b[14:], s.win)
	binary.BigEndian.PutUint16(b[18:], s.urg)
	copy(b[wire.TCPLen:], s.options)
	b = append(b, s.payload...)
	pseudo := make([]byte, 12)
	wire.PutAddr(pseudo, addr(p.from))
	wire.PutAddr(pseudo[4:], addr(p.to))
	pseudo[9] = byte(wire.ProtocolTCP)
	binary.BigEndian.PutUint16(pseudo[10:], uint16(len(b)))
	sum := naiveSum(pseudo)
	if !p.partial {
		sum = ^naiveSum(append(pseudo, b...))
	}
	binary.BigEndian.PutUint16(b[16:], sum)
	return p.ip(wire.ProtocolTCP, b)
}

// syn is a SYN of the peer that no talk is about.
func syn(sport, dport int) []byte {
	return packet{}.tcp(segment{sport: uint16(sport), dport: uint16(dport), seq: 1_000_000, flags: wire.SYN, win: 65535})
}

// frame makes the peer's segment from its description.
func (k *talk) frame(description string) []byte {
	s := segment{sport: k.peerPort, dport: k.hostPort, win: k.win}
	words := strings.Fields(description)
	s.flags = flagsOf(words[0])
	from, to, _ := strings.Cut(words[1], ":")
	a, b := number(from), number(to)
	s.seq = k.peerISS + wire.Seq(a)
	if b > a {
		s.payload = []byte(pattern(b - 1)[a-1:])
	}
	for i := 2; i < len(words); i += 2 {
		switch v := words[i+1]; words[i] {
		case "ack":
			s.ack = k.hostISS + wire.Seq(number(v))
		case "win":
			s.win = uint16(number(v))
		case "urg":
			s.urg = uint16(number(v))
		case "mss":
			s.options = append(s.options, 2, 4, byte(number(v)>>8), byte(number(v)))
		case "ws":
			s.options = append(s.options, 1, 3, 3, byte(number(v)))
		case "ts":
			val, ecr, _ := strings.Cut(v, ":")
			s.options = append(s.options, 1, 1, 8, 10)
			s.options = binary.BigEndian.AppendUint32(s.options, uint32(number(val)))
			s.options = binary.BigEndian.AppendUint32(s.options, uint32(number(ecr)))
		case "sack":
			if v == "ok" {
				s.options = append(s.options, 1, 1, 4, 2)
				continue
			}
			left, right, _ := strings.Cut(v, ":")
			s.options = append(s.options, 1, 1, 5, 10)
			s.options = binary.BigEndian.AppendUint32(s.options, uint32(k.hostISS)+uint32(number(left)))
			s.options = binary.BigEndian.AppendUint32(s.options, uint32(k.hostISS)+uint32(number(right)))
		default:
			panic(words[i])
		}
	}
	return k.ip.tcp(s)
}

func flagsOf(letters string) (f wire.TCPFlags) {
	for _, l := range letters {
		i := strings.IndexRune("FSRP.UEW", l)
		if i < 0 {
			panic(letters)
		}
		f |= 1 << i
	}
	return f
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// sends has the peer send a segment, and wants it to be delivered.
func (k *talk) sends(description string) {
	k.h.t.Helper()
	k.ends("delivered", description)
}

// ends is sends with another end than "delivered".
func (k *talk) ends(end, description string) {
	k.h.t.Helper()
	k.h.arrivesOn(k.queue, end, k.frame(description), description)
}

// gets wants the next frame that the host sent to be this segment. Of window and options only those are compared that the
// description names.
func (k *talk) gets(description string) sent {
	k.h.t.Helper()
	f := k.h.take(k.queue)
	require.NotNil(k.h.t, f, "nothing was sent in place of %s", description)
	require.Equal(k.h.t, description, k.describe(f, description), "%s", wire.Dump(f))
	return f
}

// describe is what gets compares.
func (k *talk) describe(f sent, like string) string {
	if f.ethernet().Type != wire.EtherTypeIPv4 || f.ip().Protocol() != wire.ProtocolTCP {
		return wire.Dump(f)
	}
	t, p := f.tcp(), k.ip.filled()
	if f.ip().Dst() != addr(p.from) || t.SrcPort() != k.hostPort || t.DstPort() != k.peerPort {
		return wire.Dump(f)
	}
	flags := t.Flags()
	if flags&wire.SYN != 0 && !k.knows {
		k.hostISS, k.knows = t.Seq(), true
	}
	from := int32(t.Seq() - k.hostISS)
	s := fmt.Sprintf("%v %d:%d", flags, from, int(from)+len(t.Payload()))
	if flags&wire.ACK != 0 {
		s += fmt.Sprintf(" ack %d", int32(t.Ack()-k.peerISS))
	}
	o, err := wire.ParseTCPOptions(t.Options())
	require.NoError(k.h.t, err)
	for _, c := range []struct {
		name, value string
	}{
		{"win", fmt.Sprint(t.Window())}, {"urg", fmt.Sprint(t.Urgent())}, {"mss", fmt.Sprint(o.MSS)}, {"ws", fmt.Sprint(o.WScale)},
		{"ts", fmt.Sprintf("%d:%d", o.Timestamp.Val, o.Timestamp.Ecr)},
	} {
		if strings.Contains(like, " "+c.name+" ") {
			s += " " + c.name + " " + c.value
		}
	}
	if n := len(t.Payload()); n > 0 && !strings.Contains(like, "?") {
		require.Equal(k.h.t, pattern(int(from) - 1 + n)[from-1:], string(t.Payload()), "the bytes of %s", s)
	}
	return s
}

// drains takes what the host has sent, and returns how far its text and FIN reach.
func (k *talk) drains() (end int) {
	k.h.t.Helper()
	for f := k.h.take(k.queue); f != nil; f = k.h.take(k.queue) {
		t := f.tcp()
		end = max(end, int(int32(t.Seq().Add(t.Len())-k.hostISS)))
	}
	return end
}

// dies ends a connection by a RST of the peer, which is at seq.
func (k *talk) dies(seq int) {
	k.h.t.Helper()
	k.sends(fmt.Sprintf("R %d:%d", seq, seq))
}

// handshake is the one that the peer begins, without options but its MSS.
func (k *talk) handshake() {
	k.h.t.Helper()
	k.sends("S 0:0 mss 1460")
	k.gets("S. 0:0 ack 1")
	k.sends(". 1:1 ack 1")
}

// A stream is a Stream of the host, and the script at its user's side.
type stream struct {
	*Stream
	h             *host
	wrote, tookIn int // bytes
}

// listens makes a listening socket.
func (h *host) listens(local string, cfg ListenConfig) *stream {
	h.t.Helper()
	s := &stream{Stream: h.NewStream(), h: h}
	require.NoError(h.t, s.Bind(ap(local)))
	require.NoError(h.t, s.Listen(cfg))
	return s
}

// accepts takes a connection that waits.
func (s *stream) accepts() *stream {
	s.h.t.Helper()
	s.h.settle()
	c, err := s.Accept()
	require.NoError(s.h.t, err)
	return &stream{Stream: c, h: s.h}
}

// wantNone wants no connection to wait.
func (s *stream) wantNone(why string) {
	s.h.t.Helper()
	s.h.settle()
	_, err := s.Accept()
	require.Equal(s.h.t, syscall.EAGAIN, err, why)
}

// accepted makes a listening socket on port 80 and a connection that it took.
func (h *host) accepted(changes ...func(l *Stream)) (k *talk, s, l *stream) {
	h.t.Helper()
	l = &stream{Stream: h.NewStream(), h: h}
	for _, c := range changes {
		c(l.Stream)
	}
	require.NoError(h.t, l.Bind(ap(hostIP+":80")))
	require.NoError(h.t, l.Listen(ListenConfig{Backlog: 10}))
	k = h.talk(80, 4000)
	k.handshake()
	return k, l.accepts(), l
}

// dials begins to connect to the peer's port 80, and takes the SYN.
func (h *host) dials(changes ...func(*Stream)) (k *talk, s *stream) {
	h.t.Helper()
	s = &stream{Stream: h.NewStream(), h: h}
	for _, c := range changes {
		c(s.Stream)
	}
	require.Equal(h.t, syscall.EINPROGRESS, s.Connect(ap(peerIP+":80")))
	return h.talk(s.LocalAddr().Port(), 80), s
}

// connected makes a connection that the host began.
func (h *host) connected(changes ...func(*Stream)) (k *talk, s *stream) {
	h.t.Helper()
	k, s = h.dials(changes...)
	k.gets("S 0:0")
	k.sends("S. 0:0 ack 1 mss 1460")
	k.gets(". 1:1 ack 1")
	require.True(h.t, s.Connected())
	return k, s
}

// writes has the user write the next n bytes.
func (s *stream) writes(n int) {
	s.h.t.Helper()
	require.Equal(s.h.t, n, s.writesSome(n))
}

// writesSome writes as much of n bytes as has room.
func (s *stream) writesSome(n int) int {
	s.h.t.Helper()
	m, err := s.Write([]byte(pattern(s.wrote + n)[s.wrote:]))
	if err != nil {
		require.Equal(s.h.t, syscall.EAGAIN, err)
	}
	s.wrote += m
	return m
}

// reads has the user read, and wants exactly n bytes.
func (s *stream) reads(n int) {
	s.h.t.Helper()
	s.h.settle()
	b := make([]byte, n)
	m, err := s.Read(b)
	require.NoError(s.h.t, err)
	require.Equal(s.h.t, n, m)
	require.True(s.h.t, bytes.Equal([]byte(pattern(s.tookIn + n)[s.tookIn:]), b), "bytes %d to %d", s.tookIn, s.tookIn+n)
	s.tookIn += n
}

// wantEnd wants the end of the stream, again and again.
func (s *stream) wantEnd(why string) {
	s.h.t.Helper()
	s.h.settle()
	for range 2 {
		n, err := s.Read(make([]byte, 10))
		require.NoError(s.h.t, err, why)
		require.Zero(s.h.t, n, why)
	}
}

// wantErrno wants an error of Read.
func (s *stream) wantErrno(errno syscall.Errno, why string) {
	s.h.t.Helper()
	s.h.settle()
	_, err := s.Read(make([]byte, 10))
	require.Equal(s.h.t, errno, err, why)
}

// wantNothing wants that there is nothing to read.
func (s *stream) wantNothing(why string) {
	s.h.t.Helper()
	s.wantErrno(syscall.EAGAIN, why)
}

// wantFailed wants the attempt to connect to have failed, and the error to be told once.
func (s *stream) wantFailed(errno syscall.Errno, why string) {
	s.h.t.Helper()
	s.h.settle()
	require.Equal(s.h.t, Errored|Readable|Writable, s.Events()&(Errored|Readable|Writable), why)
	require.Equal(s.h.t, errno, s.TakeError(), why)
	require.NoError(s.h.t, s.TakeError(), "told once")
	require.False(s.h.t, s.Connected())
}

// wantState wants the state of the connection.
func (s *stream) wantState(state tcp.State) {
	s.h.t.Helper()
	s.h.settle()
	i, ok := s.Info()
	require.True(s.h.t, ok, "there is a connection")
	require.Equal(s.h.t, state.String(), i.State.String())
}

// wantNoStreams wants nothing of any stream to be left: neither a socket, a port, an entry of a table, nor a timer.
func (h *host) wantNoStreams() {
	h.t.Helper()
	h.settle()
	wantNoStreams(h.t, h.Stack)
}

func wantNoStreams(t testing.TB, s *Stack) {
	t.Helper()
	require.Empty(t, s.Sockets())
	require.Empty(t, s.streams)
	require.Empty(t, s.binds)
	for _, e := range s.engines {
		require.Zero(t, e.conns.count)
		e.conns.each(func(st *Stream) { require.Fail(t, "a connection is left", "%v", st.id) })
		require.Empty(t, e.listeners)
		require.Empty(t, e.active)
		require.Zero(t, e.sockets)
		for level := range e.wheel.slots {
			for slot := range e.wheel.slots[level] {
				head := &e.wheel.slots[level][slot]
				for tm := head.next; tm != nil && tm != head; tm = tm.next {
					_, ok := tm.owner.(*Stream)
					require.False(t, ok, "a timer of a stream runs")
				}
			}
		}
	}
	for _, i := range s.ifaces() {
		if i.flows == nil {
			continue
		}
		for n := range i.flows.shards {
			require.Empty(t, i.flows.shards[n].m, "the table of flows")
		}
	}
}

// wantNoMemory wants a stream to hold no memory for bytes.
func wantNoMemory(t testing.TB, st *Stream) {
	t.Helper()
	require.Zero(t, st.tx.Memory(), "of the send buffer")
	require.Zero(t, st.rx.Memory(), "of the receive buffer")
}
