package kit

import (
	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// The Network Kit's names, so that a program needs to import nothing but this package. What they mean stands in socketapi.
const (
	AF_INET      = socketapi.AF_INET
	SOCK_STREAM  = socketapi.SOCK_STREAM
	SOCK_DGRAM   = socketapi.SOCK_DGRAM
	IPPROTO_IP   = socketapi.IPPROTO_IP
	IPPROTO_ICMP = socketapi.IPPROTO_ICMP
	IPPROTO_TCP  = socketapi.IPPROTO_TCP
	IPPROTO_UDP  = socketapi.IPPROTO_UDP

	SHUT_RD   = socketapi.SHUT_RD
	SHUT_WR   = socketapi.SHUT_WR
	SHUT_RDWR = socketapi.SHUT_RDWR

	SOL_SOCKET      = socketapi.SOL_SOCKET
	SO_NONBLOCK     = socketapi.SO_NONBLOCK
	SO_DEBUG        = socketapi.SO_DEBUG
	SO_REUSEADDR    = socketapi.SO_REUSEADDR
	SO_REUSEPORT    = socketapi.SO_REUSEPORT
	SO_BROADCAST    = socketapi.SO_BROADCAST
	SO_RCVBUF       = socketapi.SO_RCVBUF
	SO_SNDBUF       = socketapi.SO_SNDBUF
	SO_RCVTIMEO     = socketapi.SO_RCVTIMEO
	SO_SNDTIMEO     = socketapi.SO_SNDTIMEO
	SO_KEEPALIVE    = socketapi.SO_KEEPALIVE
	SO_LINGER       = socketapi.SO_LINGER
	SO_ERROR        = socketapi.SO_ERROR
	IP_TTL          = socketapi.IP_TTL
	IP_MTU_DISCOVER = socketapi.IP_MTU_DISCOVER

	IP_PMTUDISC_DONT  = socketapi.IP_PMTUDISC_DONT
	IP_PMTUDISC_WANT  = socketapi.IP_PMTUDISC_WANT
	IP_PMTUDISC_DO    = socketapi.IP_PMTUDISC_DO
	IP_PMTUDISC_PROBE = socketapi.IP_PMTUDISC_PROBE
	IP_TOS            = socketapi.IP_TOS

	TCP_NODELAY      = socketapi.TCP_NODELAY
	TCP_MAXSEG       = socketapi.TCP_MAXSEG
	TCP_CORK         = socketapi.TCP_CORK
	TCP_KEEPIDLE     = socketapi.TCP_KEEPIDLE
	TCP_KEEPINTVL    = socketapi.TCP_KEEPINTVL
	TCP_KEEPCNT      = socketapi.TCP_KEEPCNT
	TCP_INFO         = socketapi.TCP_INFO
	TCP_QUICKACK     = socketapi.TCP_QUICKACK
	TCP_CONGESTION   = socketapi.TCP_CONGESTION
	TCP_USER_TIMEOUT = socketapi.TCP_USER_TIMEOUT

	MSG_DONTWAIT = socketapi.MSG_DONTWAIT
	MSG_TRUNC    = socketapi.MSG_TRUNC
)

// Why a host was not found.
const (
	HOST_NOT_FOUND = socketapi.HOST_NOT_FOUND
	TRY_AGAIN      = socketapi.TRY_AGAIN
	NO_RECOVERY    = socketapi.NO_RECOVERY
	NO_DATA        = socketapi.NO_DATA
)

// Addresses with a meaning of their own.
var (
	INADDR_ANY       = socketapi.INADDR_ANY
	INADDR_LOOPBACK  = socketapi.INADDR_LOOPBACK
	INADDR_BROADCAST = socketapi.INADDR_BROADCAST
)

// The types that the calls take.
type (
	// Token names a socket.
	Token = socketapi.Token
	// HostEnt is a host, ServEnt a service, HostError why one was not found.
	HostEnt   = socketapi.HostEnt
	ServEnt   = socketapi.ServEnt
	HostError = socketapi.HostError
	// FdSet is a set of tokens for Select.
	FdSet = socketapi.FdSet
	// Message is one datagram of ReadBatch and WriteBatch.
	Message = stack.Message
	// Packet is the datagram that a Handler looks at.
	Packet = stack.Packet
	// Handler is called on the engine for each datagram; see Kit.Handle.
	Handler = stack.Handler
)
