package socketapi

import "net/netip"

// Families, types and protocols for Socket. Programs should use the names: the numbers happen to be Linux's.
const (
	AF_INET = 2 // IPv4, the only family

	SOCK_STREAM = 1
	SOCK_DGRAM  = 2

	IPPROTO_IP   = 0 // in Socket: the type's own protocol; in SetSockOpt: the level of IP_TTL and IP_TOS
	IPPROTO_ICMP = 1
	IPPROTO_TCP  = 6 // in SetSockOpt: the level of the TCP options
	IPPROTO_UDP  = 17
)

// SOL_SOCKET is the level of the options that every socket has.
const SOL_SOCKET = 1

// Options at level SOL_SOCKET. What each takes stands at SetSockOpt.
const (
	SO_DEBUG     = 1
	SO_REUSEADDR = 2
	SO_ERROR     = 4
	SO_BROADCAST = 6
	SO_SNDBUF    = 7
	SO_RCVBUF    = 8
	SO_KEEPALIVE = 9  // of streams: ENOPROTOOPT on a datagram socket
	SO_LINGER    = 13 // of streams: ENOPROTOOPT on a datagram socket
	SO_REUSEPORT = 15
	SO_RCVTIMEO  = 20
	SO_SNDTIMEO  = 21
	SO_NONBLOCK  = 1 << 16 // the Network Kit's own: Linux has no such option
)

// Options at level IPPROTO_TCP.
const (
	TCP_NODELAY      = 1
	TCP_MAXSEG       = 2
	TCP_CORK         = 3
	TCP_KEEPIDLE     = 4
	TCP_KEEPINTVL    = 5
	TCP_KEEPCNT      = 6
	TCP_INFO         = 11
	TCP_QUICKACK     = 12
	TCP_CONGESTION   = 13
	TCP_USER_TIMEOUT = 18
)

// Options at level IPPROTO_IP.
const (
	IP_TOS          = 1
	IP_TTL          = 2
	IP_MTU_DISCOVER = 10
)

// Values of IP_MTU_DISCOVER.
const (
	IP_PMTUDISC_DONT  = 0
	IP_PMTUDISC_WANT  = 1
	IP_PMTUDISC_DO    = 2
	IP_PMTUDISC_PROBE = 3
)

// Flags of the sending and receiving calls. A call answers EOPNOTSUPP to a flag that it does not take.
const (
	MSG_TRUNC    = 0x20   // Recv, RecvFrom: return the datagram's length, even where buf is shorter
	MSG_DONTWAIT = 0x40   // any of them: this call does not block
	MSG_MORE     = 0x8000 // Send on a stream: more comes at once, so that what fills no segment waits for it, 200 ms at most
)

// Addresses with a meaning of their own.
var (
	INADDR_ANY       = netip.IPv4Unspecified()                      // 0.0.0.0: in Bind, the first interface with the port free
	INADDR_LOOPBACK  = netip.AddrFrom4([4]byte{127, 0, 0, 1})       // this machine
	INADDR_BROADCAST = netip.AddrFrom4([4]byte{255, 255, 255, 255}) // in SendTo: every host on every interface
)
