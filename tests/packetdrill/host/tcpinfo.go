package host

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack/tcp"
)

// linuxStates are the numbers of include/net/tcp_states.h.
var linuxStates = map[tcp.State]uint8{
	tcp.Established: 1, tcp.SynSent: 2, tcp.SynReceived: 3, tcp.FinWait1: 4, tcp.FinWait2: 5, tcp.TimeWait: 6, tcp.Closed: 7,
	tcp.CloseWait: 8, tcp.LastAck: 9, tcp.Listen: 10, tcp.Closing: 11,
}

// linuxCAStates are those of enum tcp_ca_state (include/uapi/linux/tcp.h).
var linuxCAStates = map[string]uint8{"open": 0, "disorder": 1, "cwr": 2, "recovery": 3, "loss": 4}

// The bits of tcpi_options (include/uapi/linux/tcp.h).
const (
	optTimestamps = 1 << iota
	optSACK
	optWScale
	optECN
)

// linuxInfinite is TCP_INFINITE_SSTHRESH, infinite the stack's own (tcp.Info).
const (
	linuxInfinite = 0x7fffffff
	infinite      = 1 << 30
)

// dupThresh is net.ipv4.tcp_reordering, the least that tcpi_reordering is.
const dupThresh = 3

// scalesAt is where struct tcp_info has the two window scales, 4 bits each, which unix.TCPInfo leaves out.
const scalesAt = 6

// info is struct tcp_info (include/uapi/linux/tcp.h), as far as the stack knows its figures; the others are 0.
func (s *socket) info() []byte {
	i, ok := s.st.Info()
	if !ok {
		i.State = tcp.Closed
	}
	us := func(d time.Duration) uint32 { return uint32(d / time.Microsecond) }
	ms := func(d time.Duration) uint32 { return uint32(d / time.Millisecond) }
	out := unix.TCPInfo{
		State: linuxStates[i.State], Ca_state: linuxCAStates[i.CongestionState],
		Retransmits: i.Retransmits, Probes: i.Probes, Backoff: i.Backoff,
		Options: uint8(number(i.Timestamps)*optTimestamps | number(i.SACK)*optSACK |
			number(i.WindowScale)*optWScale | number(i.ECN)*optECN),
		Rto: us(i.RTO), Ato: us(i.DelayedACK), Snd_mss: uint32(i.SendMSS), Rcv_mss: uint32(i.ReceiveMSS),
		Unacked: i.InFlight, Sacked: i.Sacked, Lost: i.Lost, Retrans: i.Retransmitting,
		Last_data_sent: ms(i.LastSent), Last_data_recv: ms(i.LastReceived), Last_ack_recv: ms(i.LastHeard), Pmtu: uint32(i.MTU),
		Rtt: us(i.SRTT), Rttvar: us(i.RTTVar), Snd_ssthresh: i.Ssthresh, Snd_cwnd: i.Cwnd,
		Advmss: uint32(i.AnnouncedMSS), Reordering: max(i.ReorderingExtent, dupThresh),
		Total_retrans: i.Retransmitted, Pacing_rate: i.PacingRate, Bytes_acked: i.Delivered, Bytes_received: i.Received,
		Segs_out: i.SegmentsOut, Segs_in: i.SegmentsIn, Notsent_bytes: uint32(i.Unsent), Min_rtt: us(i.MinRTT),
		Dsack_dups: i.Duplicates, Reord_seen: i.Reorderings, Snd_wnd: i.SendWindow, Rcv_wnd: i.ReceiveWindow,
	}
	if i.Ssthresh >= infinite {
		out.Snd_ssthresh = linuxInfinite
	}
	b := make([]byte, unsafe.Sizeof(out))
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&out)), len(b)))
	b[scalesAt] = i.SendScale | i.ReceiveScale<<4
	return b
}

// memInfo is SO_MEMINFO's answer: nine numbers (include/uapi/linux/sock_diag.h), of which the stack has two.
func (s *socket) memInfo() []byte {
	const rcvbuf, sndbuf, count = 1, 3, 9
	b := make([]byte, 4*count)
	binary.NativeEndian.PutUint32(b[4*rcvbuf:], uint32(2*s.st.ReceiveBuffer()))
	binary.NativeEndian.PutUint32(b[4*sndbuf:], uint32(s.st.SendBuffer()))
	return b
}
