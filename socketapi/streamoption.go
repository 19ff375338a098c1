package socketapi

import (
	"bytes"
	"encoding/binary"
	"slices"
	"syscall"
	"time"

	"kitnet.dev/kit/stack/tcp"
)

// streamOptions are those of streams alone.
var streamOptions = []option{
	{SOL_SOCKET, SO_KEEPALIVE, boolean,
		func(s *socket) int64 { on, _, _, _ := s.st.KeepAlive(); return number(on) },
		func(s *socket, v int64) error { return s.st.SetKeepAlive(v != 0) }},
	{SOL_SOCKET, SO_LINGER, lingering,
		func(s *socket) int64 {
			if d, on := s.st.Linger(); on {
				return int64(d / time.Second)
			}
			return -1
		},
		func(s *socket, v int64) error { return s.st.SetLinger(time.Duration(v) * time.Second) }},
	{IPPROTO_TCP, TCP_NODELAY, boolean,
		func(s *socket) int64 { return number(s.st.NoDelay()) },
		func(s *socket, v int64) error { return s.st.SetNoDelay(v != 0) }},
	{IPPROTO_TCP, TCP_CORK, boolean,
		func(s *socket) int64 { return number(s.st.Cork()) },
		func(s *socket, v int64) error { return s.st.SetCork(v != 0) }},
	{IPPROTO_TCP, TCP_QUICKACK, boolean,
		func(s *socket) int64 { return number(s.st.QuickACK()) },
		func(s *socket, v int64) error { return s.st.SetQuickACK(v != 0) }},
	{IPPROTO_TCP, TCP_MAXSEG, integer,
		func(s *socket) int64 { return int64(s.st.MaxSegment()) },
		func(s *socket, v int64) error {
			if v == 0 {
				return syscall.EINVAL
			}
			return s.st.SetMaxSegment(int(v))
		}},
	{IPPROTO_TCP, TCP_KEEPIDLE, integer,
		func(s *socket) int64 { _, idle, _, _ := s.keepAlive(); return int64(idle / time.Second) },
		func(s *socket, v int64) error {
			return s.setKeepAlive(v, func(idle, _ *time.Duration, _ *int) { *idle = time.Duration(v) * time.Second })
		}},
	{IPPROTO_TCP, TCP_KEEPINTVL, integer,
		func(s *socket) int64 { _, _, interval, _ := s.keepAlive(); return int64(interval / time.Second) },
		func(s *socket, v int64) error {
			return s.setKeepAlive(v, func(_, interval *time.Duration, _ *int) { *interval = time.Duration(v) * time.Second })
		}},
	{IPPROTO_TCP, TCP_KEEPCNT, integer,
		func(s *socket) int64 { _, _, _, probes := s.keepAlive(); return int64(probes) },
		func(s *socket, v int64) error {
			return s.setKeepAlive(v, func(_, _ *time.Duration, probes *int) { *probes = int(v) })
		}},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, integer,
		func(s *socket) int64 { return int64(s.st.UserTimeout() / time.Millisecond) },
		func(s *socket, v int64) error { return s.st.SetUserTimeout(time.Duration(v) * time.Millisecond) }},
	{IPPROTO_TCP, TCP_CONGESTION, algorithm,
		func(s *socket) int64 { return int64(slices.Index(congestionNames, s.st.Congestion())) },
		func(s *socket, v int64) error { return s.st.SetCongestion(congestionNames[v]) }},
	{IPPROTO_TCP, TCP_INFO, tcpInfo, nil, nil},
}

// keepAlive is Stream.KeepAlive with the stack's numbers where none were set.
func (s *socket) keepAlive() (on bool, idle, interval time.Duration, probes int) {
	on, idle, interval, probes = s.st.KeepAlive()
	c := s.kit.stack.TCPConfig()
	if idle == 0 {
		idle = c.KeepAliveIdle
	}
	if interval == 0 {
		interval = c.KeepAliveInterval
	}
	if probes == 0 {
		probes = c.KeepAliveProbes
	}
	return on, idle, interval, probes
}

// setKeepAlive changes one of the three numbers. EINVAL: v is not positive, or too large.
func (s *socket) setKeepAlive(v int64, change func(idle, interval *time.Duration, probes *int)) error {
	if v < 1 {
		return syscall.EINVAL
	}
	_, idle, interval, probes := s.st.KeepAlive()
	change(&idle, &interval, &probes)
	return s.st.SetKeepAliveTimes(idle, interval, probes)
}

var congestionNames = tcp.CongestionNames()

// congestionNumber finds the congestion control that data names, up to its end or a zero byte. ENOENT: there is none.
func congestionNumber(data []byte) (int64, error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		data = data[:i]
	}
	name := string(data)
	if name == "reno" {
		name = "newreno"
	}
	if i := slices.Index(congestionNames, name); i >= 0 {
		return int64(i), nil
	}
	return 0, syscall.ENOENT
}

// tcpInfoLen is the length of struct tcp_info up to tcpi_snd_wnd, Linux 5.4's.
const tcpInfoLen = 232

// linuxStates are tcpi_state (include/net/tcp_states.h) by tcp.State.
var linuxStates = [...]uint8{tcp.Closed: 7, tcp.Listen: 10, tcp.SynSent: 2, tcp.SynReceived: 3, tcp.Established: 1, tcp.FinWait1: 4,
	tcp.FinWait2: 5, tcp.CloseWait: 8, tcp.Closing: 11, tcp.LastAck: 9, tcp.TimeWait: 6}

// linuxCongestionStates are tcpi_ca_state (enum tcp_ca_state) by tcp.Info.CongestionState.
var linuxCongestionStates = map[string]uint8{"open": 0, "disorder": 1, "cwr": 2, "recovery": 3, "loss": 4}

// tcpInfo writes struct tcp_info of include/uapi/linux/tcp.h, as much of it as out has room for. What kit does not count is 0.
// ENOTCONN: there is no connection.
func (s *socket) tcpInfo(out []byte) (int, error) {
	i, ok := s.st.Info()
	if !ok {
		return 0, syscall.ENOTCONN
	}
	var b [tcpInfoLen]byte
	put32 := func(at int, v uint32) { binary.NativeEndian.PutUint32(b[at:], v) }
	put64 := func(at int, v uint64) { binary.NativeEndian.PutUint64(b[at:], v) }
	micro := func(d time.Duration) uint32 { return uint32(d / time.Microsecond) }
	milli := func(d time.Duration) uint32 { return uint32(d / time.Millisecond) }
	b[0], b[1], b[2], b[3], b[4] = linuxStates[i.State], linuxCongestionStates[i.CongestionState], i.Retransmits, i.Probes, i.Backoff
	for bit, on := range []bool{i.Timestamps, i.SACK, i.WindowScale, i.ECN} { // TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE, _ECN
		b[5] |= byte(number(on)) << bit
	}
	b[6] = i.SendScale&0xF | i.ReceiveScale<<4
	for n, v := range []uint32{ // from tcpi_rto at 8 on
		micro(i.RTO), micro(i.DelayedACK), uint32(i.SendMSS), uint32(i.ReceiveMSS),
		i.InFlight, i.Sacked, i.Lost, i.Retransmitting, 0, // unacked, sacked, lost, retrans, fackets
		milli(i.LastSent), 0, milli(i.LastHeard), milli(i.LastHeard), // last data sent, ack sent, data received, ack received
		uint32(i.MTU), uint32(min(i.ReceiveBuffer, i.ReceiveMSS)), micro(i.SRTT), micro(i.RTTVar), i.Ssthresh, i.Cwnd,
		uint32(i.SendMSS), 3, // advmss, reordering
		0, uint32(i.ReceiveBuffer), i.Retransmitted, // rcv_rtt, rcv_space, total_retrans
	} {
		put32(8+4*n, v)
	}
	put64(104, i.PacingRate)
	put64(112, ^uint64(0)) // max pacing rate: none
	put64(120, i.Delivered)
	put64(128, i.Received)
	put32(136, i.SegmentsOut)
	put32(140, i.SegmentsIn)
	put32(144, uint32(i.Unsent))
	put32(148, micro(i.MinRTT))
	put32(216, i.Duplicates)
	put32(220, i.Reorderings)
	put32(228, i.SendWindow)
	return copy(out, b[:]), nil
}
