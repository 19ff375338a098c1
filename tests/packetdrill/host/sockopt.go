package host

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// Setsockopt is setsockopt(2).
func (h *Host) Setsockopt(fd, level, name int, value []byte) int {
	return h.prompt(fd, func(s *socket) int {
		if level == unix.IPPROTO_TCP && name == unix.TCP_CONGESTION {
			return errnoOf(s.st.SetCongestion(string(value)))
		}
		n := 0
		switch {
		case len(value) >= 4:
			n = int(int32(binary.NativeEndian.Uint32(value)))
		case level == unix.IPPROTO_IP && len(value) > 0: // ip_setsockopt takes a char, too
			n = int(value[0])
		default:
			return -int(unix.EINVAL)
		}
		switch level {
		case unix.SOL_SOCKET:
			return s.setSocket(name, n, value)
		case unix.IPPROTO_TCP:
			return s.setTCP(name, n)
		case unix.IPPROTO_IP:
			return s.setIP(name, n)
		}
		return -int(unix.ENOPROTOOPT)
	})
}

func (s *socket) setSocket(name, n int, value []byte) int {
	switch name {
	// The kernel doubles both numbers, and answers with that (socket(7)). Twice as much text does fit into what is sent; into
	// what is received only where segments are full, so that half counts for the window (tcp_win_from_space).
	case unix.SO_RCVBUF:
		return errnoOf(s.st.SetReceiveBuffer(n))
	case unix.SO_SNDBUF:
		return errnoOf(s.st.SetSendBuffer(2 * n))
	case unix.SO_REUSEADDR:
		return errnoOf(s.st.SetReuseAddr(n != 0))
	case unix.SO_REUSEPORT:
		return errnoOf(s.st.SetReusePort(n != 0))
	case unix.SO_KEEPALIVE:
		return errnoOf(s.st.SetKeepAlive(n != 0))
	case unix.SO_LINGER:
		if len(value) < 8 {
			return -int(unix.EINVAL)
		}
		if n == 0 {
			return errnoOf(s.st.SetLinger(-1))
		}
		return errnoOf(s.st.SetLinger(seconds(int(binary.NativeEndian.Uint32(value[4:])))))
	}
	return -int(unix.ENOPROTOOPT)
}

func (s *socket) setTCP(name, n int) int {
	switch name {
	case unix.TCP_NODELAY:
		return errnoOf(s.st.SetNoDelay(n != 0))
	case unix.TCP_CORK:
		return errnoOf(s.st.SetCork(n != 0))
	case unix.TCP_QUICKACK:
		return errnoOf(s.st.SetQuickACK(n != 0))
	case unix.TCP_MAXSEG:
		return errnoOf(s.st.SetMaxSegment(n))
	case unix.TCP_USER_TIMEOUT:
		return errnoOf(s.st.SetUserTimeout(milliseconds(n)))
	case unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT:
		if n < 1 {
			return -int(unix.EINVAL)
		}
		_, idle, interval, probes := s.st.KeepAlive()
		switch name {
		case unix.TCP_KEEPIDLE:
			idle = seconds(n)
		case unix.TCP_KEEPINTVL:
			interval = seconds(n)
		default:
			probes = n
		}
		return errnoOf(s.st.SetKeepAliveTimes(idle, interval, probes))
	}
	return -int(unix.ENOPROTOOPT)
}

func (s *socket) setIP(name, n int) int {
	switch name {
	case unix.IP_TOS:
		s.st.SetTOS(uint8(n))
		return 0
	case unix.IP_MTU_DISCOVER:
		return 0 // whatever is asked for, TCP finds the MTU out
	case unix.IP_TTL:
		if n < 1 || n > 255 {
			return -int(unix.EINVAL)
		}
		return errnoOf(s.st.SetTTL(uint8(n)))
	}
	return -int(unix.ENOPROTOOPT)
}

// Getsockopt is getsockopt(2). It writes the option to value and returns how many bytes of it count.
func (h *Host) Getsockopt(fd, level, name int, value []byte) (length, result int) {
	result = h.prompt(fd, func(s *socket) int {
		var out []byte
		number, ok := 0, false
		switch level {
		case unix.SOL_SOCKET:
			if name == unix.SO_MEMINFO {
				out = s.memInfo()
			} else {
				number, ok = s.getSocket(name)
			}
		case unix.IPPROTO_TCP:
			switch name {
			case unix.TCP_INFO:
				out = s.info()
			case unix.TCP_CC_INFO:
				out = []byte{} // neither algorithm has one
			case unix.TCP_CONGESTION:
				out = make([]byte, 16) // TCP_CA_NAME_MAX
				copy(out, s.st.Congestion())
			default:
				number, ok = s.getTCP(name)
			}
		case unix.IPPROTO_IP:
			number, ok = s.getIP(name)
		}
		if ok {
			out = binary.NativeEndian.AppendUint32(nil, uint32(number))
		}
		if out == nil {
			return -int(unix.ENOPROTOOPT)
		}
		length = copy(value, out)
		return 0
	})
	return length, result
}

func (s *socket) getSocket(name int) (n int, ok bool) {
	switch name {
	case unix.SO_ERROR:
		return -errnoOf(s.st.TakeError()), true
	case unix.SO_RCVBUF:
		return 2 * s.st.ReceiveBuffer(), true
	case unix.SO_SNDBUF:
		return s.st.SendBuffer(), true
	case unix.SO_REUSEADDR:
		return number(s.st.ReuseAddr()), true
	case unix.SO_REUSEPORT:
		return number(s.st.ReusePort()), true
	case unix.SO_KEEPALIVE:
		on, _, _, _ := s.st.KeepAlive()
		return number(on), true
	}
	return 0, false
}

func (s *socket) getTCP(name int) (n int, ok bool) {
	_, idle, interval, probes := s.st.KeepAlive()
	switch name {
	case unix.TCP_NODELAY:
		return number(s.st.NoDelay()), true
	case unix.TCP_CORK:
		return number(s.st.Cork()), true
	case unix.TCP_QUICKACK:
		return number(s.st.QuickACK()), true
	case unix.TCP_MAXSEG:
		return s.st.MaxSegment(), true
	case unix.TCP_USER_TIMEOUT:
		return int(s.st.UserTimeout() / time.Millisecond), true
	case unix.TCP_KEEPIDLE:
		return int(idle / time.Second), true
	case unix.TCP_KEEPINTVL:
		return int(interval / time.Second), true
	case unix.TCP_KEEPCNT:
		return probes, true
	}
	return 0, false
}

func (s *socket) getIP(name int) (n int, ok bool) {
	switch name {
	case unix.IP_TOS:
		return int(s.st.TOS()), true
	case unix.IP_TTL:
		return int(s.st.TTL()), true
	}
	return 0, false
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
