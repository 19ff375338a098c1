package stack

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/tcp"
	"kitnet.dev/kit/stack/wire"
)

// An active connection whose answers come to another queue moves there: from the answer to its SYN on, nothing is forwarded.
func TestActiveConnectionFollowsItsAnswers(t *testing.T) {
	h := newHost(t, func(s *setup) { s.queues = 2 })
	h.keepPeer()
	st := h.NewStream()
	require.Error(t, st.Connect(ap(peerIP+":80")))
	began := st.e.Load()
	answers := h.iface.engines[1-began.queue]
	syn := tcpOf(t, h.take(began.queue))
	id := st.id

	reply := func(flags wire.TCPFlags, seq, ack wire.Seq, payload string) []byte {
		b := make([]byte, wire.TCPLen+len(payload))
		sum := wire.CopySum(b[wire.TCPLen:], []byte(payload), 0)
		f := wire.TCPFields{Src: id.Remote, Dst: id.Local, SrcPort: id.RemotePort, DstPort: id.LocalPort, Seq: seq, Ack: ack,
			Flags: flags, Window: 65535, PayloadLen: len(payload)}
		wire.PutTCP(b, &f, sum)
		return packet{}.ip(wire.ProtocolTCP, b)
	}
	h.arrivesOn(answers.queue, "delivered forwarded", reply(tcp.SYN|tcp.ACK, 1000, syn.Seq()+1, ""))
	require.True(t, st.Connected())
	require.Same(t, answers, st.e.Load())
	require.Zero(t, began.conns.count)
	require.NotNil(t, h.take(began.queue), "the ACK of the handshake went out where it was made")

	h.arrivesOn(answers.queue, "delivered", reply(tcp.ACK|tcp.PSH, 1001, syn.Seq()+1, "hello"))
	require.Empty(t, tcpOf(t, h.take(answers.queue)).Payload(), "a quick ACK, from the queue of the flow")
	b := make([]byte, 10)
	n, err := st.Read(b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b[:n]))
	_, err = st.Write([]byte("world"))
	require.NoError(t, err)
	require.Equal(t, "world", string(tcpOf(t, h.take(answers.queue)).Payload()))

	// What comes to the queue where it began is forwarded.
	h.arrivesOn(began.queue, "delivered forwarded", reply(tcp.ACK|tcp.FIN, 1006, syn.Seq()+6, ""))
	require.Equal(t, tcp.CloseWait, st.conn.State())
	require.NoError(t, st.Close())
	for {
		if f := tcpOf(t, h.take(answers.queue)); f.Flags()&tcp.FIN != 0 {
			break
		}
	}
	h.arrivesOn(answers.queue, "delivered", reply(tcp.ACK, 1007, syn.Seq()+7, ""))
	require.Nil(t, h.iface.flows.get(&id))
	require.Empty(t, h.binds)
}

// tcpOf is the segment in a frame without VLAN tags.
func tcpOf(t *testing.T, f sent) wire.TCP {
	t.Helper()
	require.NotNil(t, f)
	p, err := wire.ParseIPv4(f[wire.EthernetLen:])
	require.NoError(t, err)
	s, err := wire.ParseTCP(p.Payload())
	require.NoError(t, err)
	return s
}
