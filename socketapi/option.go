package socketapi

import (
	"encoding/binary"
	"math"
	"syscall"
	"time"
)

// form is how an option's value looks in the bytes of SetSockOpt and GetSockOpt.
type form uint8

const (
	boolean   form = iota // set: one byte or more, true if one is not 0; got: an int of 0 or 1
	integer               // 4 bytes in host order
	timeval               // 8 bytes of seconds, 8 bytes of microseconds, both in host order
	lingering             // 4 bytes that are not 0 where it is on, 4 bytes of seconds, both in host order
	algorithm             // the name of a congestion control, up to 15 letters and, got, a zero byte
	tcpInfo               // get only: struct tcp_info of include/uapi/linux/tcp.h
)

func (f form) size() int {
	switch f {
	case timeval, algorithm:
		return 16
	case lingering:
		return 8
	case tcpInfo:
		return tcpInfoLen
	}
	return 4
}

// option is one row of what SetSockOpt and GetSockOpt know. Values are numbers: 0 and 1 for a boolean, nanoseconds for
// a timeval, seconds for lingering or -1 where it is off. A congestion control's is its place in congestionNames.
type option struct {
	level, name int
	form        form
	get         func(*socket) int64
	set         func(*socket, int64) error // nil: can only be got
}

var options = []option{
	{SOL_SOCKET, SO_NONBLOCK, boolean,
		func(s *socket) int64 { return number(s.nonBlock.Load()) },
		func(s *socket, v int64) error { s.nonBlock.Store(v != 0); return nil }},
	{SOL_SOCKET, SO_DEBUG, boolean,
		func(s *socket) int64 { return number(s.debug.Load()) },
		func(s *socket, v int64) error { s.debug.Store(v != 0); return nil }},
	{SOL_SOCKET, SO_REUSEADDR, boolean,
		func(s *socket) int64 { return number(s.ReuseAddr()) },
		func(s *socket, v int64) error {
			if s.st != nil {
				return s.st.SetReuseAddr(v != 0)
			}
			s.d.SetReuseAddr(v != 0)
			return nil
		}},
	{SOL_SOCKET, SO_REUSEPORT, boolean,
		func(s *socket) int64 { return number(s.ReusePort()) },
		func(s *socket, v int64) error { return s.SetReusePort(v != 0) }},
	{SOL_SOCKET, SO_RCVBUF, integer,
		func(s *socket) int64 { return int64(s.ReceiveBuffer()) },
		func(s *socket, v int64) error {
			if s.st != nil {
				return s.st.SetReceiveBuffer(int(max(v, 0)))
			}
			s.d.SetReceiveBuffer(int(max(v, 0)))
			return nil
		}},
	{SOL_SOCKET, SO_SNDBUF, integer,
		func(s *socket) int64 { return int64(s.SendBuffer()) },
		func(s *socket, v int64) error {
			if s.st != nil {
				return s.st.SetSendBuffer(int(max(v, 0)))
			}
			s.d.SetSendBuffer(int(max(v, 0)))
			return nil
		}},
	{SOL_SOCKET, SO_RCVTIMEO, timeval,
		func(s *socket) int64 { return s.rcvTimeout.Load() },
		func(s *socket, v int64) error { s.rcvTimeout.Store(v); return nil }},
	{SOL_SOCKET, SO_SNDTIMEO, timeval,
		func(s *socket) int64 { return s.sndTimeout.Load() },
		func(s *socket, v int64) error { s.sndTimeout.Store(v); return nil }},
	{SOL_SOCKET, SO_ERROR, integer, takeError, nil},
	{IPPROTO_IP, IP_TTL, integer,
		func(s *socket) int64 { return int64(s.TTL()) },
		func(s *socket, v int64) error {
			if v < 1 || v > math.MaxUint8 {
				return syscall.EINVAL
			}
			return s.SetTTL(uint8(v))
		}},
	{IPPROTO_IP, IP_TOS, integer,
		func(s *socket) int64 { return int64(s.TOS()) },
		func(s *socket, v int64) error {
			if v < 0 || v > math.MaxUint8 {
				return syscall.EINVAL
			}
			s.SetTOS(uint8(v))
			return nil
		}},
}

// datagramOptions are those of datagram sockets alone.
var datagramOptions = []option{
	{SOL_SOCKET, SO_BROADCAST, boolean,
		func(s *socket) int64 { return number(s.d.Broadcast()) },
		func(s *socket, v int64) error { s.d.SetBroadcast(v != 0); return nil }},
	{IPPROTO_IP, IP_MTU_DISCOVER, integer,
		func(s *socket) int64 {
			switch {
			case s.d.Fragment():
				return IP_PMTUDISC_WANT
			case s.d.Probe():
				return IP_PMTUDISC_PROBE
			}
			return IP_PMTUDISC_DO
		},
		func(s *socket, v int64) error {
			if v < IP_PMTUDISC_DONT || v > IP_PMTUDISC_PROBE {
				return syscall.EINVAL
			}
			s.d.SetFragment(v <= IP_PMTUDISC_WANT)
			s.d.SetProbe(v == IP_PMTUDISC_PROBE)
			return nil
		}},
}

// takeError reads and clears the waiting error of s: an errno, 0 for none.
func takeError(s *socket) int64 {
	errno, _ := s.TakeError().(syscall.Errno)
	return int64(errno)
}

// SetSockOpt sets an option from bytes. A boolean takes one byte or more and is true if one of them is not 0; an integer
// takes 4 bytes in host order; a time-out takes a struct timeval: 8 bytes of seconds and 8 of microseconds in host order.
// SetSockOptInt and SetTimeout take Go's own types.
//
//	SOL_SOCKET  SO_NONBLOCK   boolean  every call answers EWOULDBLOCK where it would block
//	            SO_REUSEADDR  boolean  streams: Bind takes a port that only connections of a closed listening socket hold.
//	                                   Others: is kept and can be got; a datagram port is free at once when its socket closes
//	            SO_REUSEPORT  boolean  before Bind: sockets that all set it share a port, each flow going to one of them
//	            SO_BROADCAST  boolean  datagrams: on from the start; off: a broadcast is EACCES
//	            SO_KEEPALIVE  boolean  streams: a silent peer is probed
//	            SO_LINGER     struct   streams: 4 bytes that are not 0, and 4 of seconds: how long CloseSocket waits for the peer to
//	                                   acknowledge all, and resets the connection then; with 0 seconds it resets it at once
//	            SO_DEBUG      boolean  is kept and can be got
//	            SO_RCVBUF     integer  bytes that wait to be received, of datagrams on each queue of the card, 2 KiB to 256 MiB; a
//	                                   stream's buffers follow what the path needs until they are set
//	            SO_SNDBUF     integer  bytes that wait to be sent, and on a stream to be acknowledged, 2 KiB to 256 MiB
//	            SO_RCVTIMEO   timeval  how long a receiving call blocks; 0: for ever
//	            SO_SNDTIMEO   timeval  how long a sending call blocks; 0: for ever
//	            SO_ERROR      integer  get only: the waiting error, an errno, which is then cleared
//	IPPROTO_IP  IP_TTL        integer  time to live of what is sent, 1 to 255
//	            IP_TOS        integer  type of service of what is sent, 0 to 255; on a stream its last two bits are TCP's
//	            IP_MTU_DISCOVER  integer  datagrams: IP_PMTUDISC_DO, and one that is longer than the path's MTU is dropped;
//	                                   IP_PMTUDISC_PROBE, than the card's MTU, whatever ICMP has told;
//	                                   IP_PMTUDISC_WANT, as from the start, or IP_PMTUDISC_DONT, and it leaves in fragments
//	IPPROTO_TCP TCP_NODELAY       boolean  small segments leave at once (Nagle's algorithm is off)
//	            TCP_CORK          boolean  segments that are not full wait, for 200 ms at most
//	            TCP_QUICKACK      boolean  every segment is acknowledged at once
//	            TCP_MAXSEG        integer  bytes of payload in a segment at most, 48 to 65495
//	            TCP_KEEPIDLE      integer  seconds after which a peer is silent, 1 to 32767
//	            TCP_KEEPINTVL     integer  seconds between probes, 1 to 32767
//	            TCP_KEEPCNT       integer  probes, 1 to 127
//	            TCP_USER_TIMEOUT  integer  milliseconds that sent bytes may stay without an answer; 0: by retransmissions
//	            TCP_CONGESTION    name     "cubic" or "newreno" ("reno")
//	            TCP_INFO          struct   get only: struct tcp_info as Linux has it; TCPInfo gives it in Go's own types
//
// Errors: EBADF; ENOPROTOOPT, the level has no such option on a socket of this kind; ENOENT, no such congestion control; EINVAL,
// data is too short, the value out of range, or SO_REUSEPORT comes after Bind; EDOM, a time-out is negative or its microseconds
// are not below a million; EINTR.
func (k *Kit) SetSockOpt(t Token, level, opt int, data []byte) error {
	s, o, err := k.option(t, level, opt)
	if err != nil {
		return err
	}
	if o.set == nil {
		return syscall.ENOPROTOOPT
	}
	v, err := o.form.decode(data)
	if err != nil {
		return err
	}
	return s.overtaken(o.set(s, v))
}

// GetSockOpt writes an option into the start of data, in the form that SetSockOpt takes (a boolean as an integer), and
// returns how many bytes that is. TCP_INFO is cut to the length of data, for programs that know less of it. Errors: EBADF;
// ENOPROTOOPT; EINVAL, data is too short; ENOTCONN, TCP_INFO of a stream without a connection.
func (k *Kit) GetSockOpt(t Token, level, opt int, data []byte) (int, error) {
	s, o, err := k.option(t, level, opt)
	if err != nil {
		return 0, err
	}
	if o.form == tcpInfo {
		return s.tcpInfo(data)
	}
	if len(data) < o.form.size() {
		return 0, syscall.EINVAL
	}
	o.form.encode(data, o.get(s))
	return o.form.size(), nil
}

// SetSockOptInt is SetSockOpt for a boolean or an integer. A time-out is EINVAL.
func (k *Kit) SetSockOptInt(t Token, level, opt, value int) error {
	s, o, err := k.option(t, level, opt)
	switch {
	case err != nil:
		return err
	case o.set == nil:
		return syscall.ENOPROTOOPT
	case o.form > integer:
		return syscall.EINVAL
	}
	return s.overtaken(o.set(s, int64(value)))
}

// GetSockOptInt is GetSockOpt for a boolean or an integer. A time-out is EINVAL.
func (k *Kit) GetSockOptInt(t Token, level, opt int) (int, error) {
	s, o, err := k.option(t, level, opt)
	switch {
	case err != nil:
		return 0, err
	case o.form > integer:
		return 0, syscall.EINVAL
	}
	return int(o.get(s)), nil
}

// SetTimeout sets SO_RCVTIMEO or SO_SNDTIMEO; 0: for ever. Errors: EBADF; ENOPROTOOPT, another option; EDOM, d is
// negative.
func (k *Kit) SetTimeout(t Token, opt int, d time.Duration) error {
	s, o, err := k.option(t, SOL_SOCKET, opt)
	switch {
	case err != nil:
		return err
	case o.form != timeval:
		return syscall.ENOPROTOOPT
	case d < 0:
		return syscall.EDOM
	}
	return s.overtaken(o.set(s, int64(d)))
}

// GetTimeout returns SO_RCVTIMEO or SO_SNDTIMEO; 0: for ever. Errors: EBADF; ENOPROTOOPT, another option.
func (k *Kit) GetTimeout(t Token, opt int) (time.Duration, error) {
	s, o, err := k.option(t, SOL_SOCKET, opt)
	switch {
	case err != nil:
		return 0, err
	case o.form != timeval:
		return 0, syscall.ENOPROTOOPT
	}
	return time.Duration(o.get(s)), nil
}

// option finds the socket and the option. Errors: EBADF; ENOPROTOOPT.
func (k *Kit) option(t Token, level, name int) (*socket, *option, error) {
	s, err := k.find(t)
	if err != nil {
		return nil, nil, err
	}
	if o := s.option(level, name); o != nil {
		return s, o, nil
	}
	return nil, nil, syscall.ENOPROTOOPT
}

// option finds an option of a socket, nil where it has none such.
func (s *socket) option(level, name int) *option {
	own := datagramOptions
	if s.st != nil {
		own = streamOptions
	}
	for _, table := range [...][]option{options, own} {
		for i := range table {
			if o := &table[i]; o.level == level && o.name == name {
				return o
			}
		}
	}
	return nil
}

func (f form) decode(data []byte) (int64, error) {
	switch {
	case f == boolean && len(data) > 0:
		for _, b := range data {
			if b != 0 {
				return 1, nil
			}
		}
		return 0, nil
	case f == algorithm:
		return congestionNumber(data)
	case len(data) < f.size():
		return 0, syscall.EINVAL
	case f == integer:
		return int64(int32(binary.NativeEndian.Uint32(data))), nil
	case f == lingering:
		if binary.NativeEndian.Uint32(data) == 0 {
			return -1, nil
		}
		return int64(binary.NativeEndian.Uint32(data[4:])), nil
	}
	sec, usec := int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:]))
	if sec < 0 || usec < 0 || usec >= 1e6 {
		return 0, syscall.EDOM
	}
	if sec >= int64(math.MaxInt64/time.Second) {
		return math.MaxInt64, nil // 292 years
	}
	return sec*1e9 + usec*1e3, nil
}

func (f form) encode(data []byte, v int64) {
	switch f {
	case boolean, integer:
		binary.NativeEndian.PutUint32(data, uint32(v))
		return
	case lingering:
		binary.NativeEndian.PutUint32(data, uint32(number(v >= 0)))
		binary.NativeEndian.PutUint32(data[4:], uint32(max(v, 0)))
		return
	case algorithm:
		clear(data[copy(data, congestionNames[v]):16])
		return
	}
	usec := v/1e3 + min(v%1e3, 1) // rounded up: 0 would mean for ever
	binary.NativeEndian.PutUint64(data, uint64(usec/1e6))
	binary.NativeEndian.PutUint64(data[8:], uint64(usec%1e6))
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
