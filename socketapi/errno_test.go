package socketapi_test

import "syscall"

// The errors of the contract.
const (
	EACCES          = syscall.EACCES
	EADDRINUSE      = syscall.EADDRINUSE
	EADDRNOTAVAIL   = syscall.EADDRNOTAVAIL
	EAFNOSUPPORT    = syscall.EAFNOSUPPORT
	EBADF           = syscall.EBADF
	ECONNABORTED    = syscall.ECONNABORTED
	ECONNREFUSED    = syscall.ECONNREFUSED
	ECONNRESET      = syscall.ECONNRESET
	EDESTADDRREQ    = syscall.EDESTADDRREQ
	EDOM            = syscall.EDOM
	EHOSTUNREACH    = syscall.EHOSTUNREACH
	EINTR           = syscall.EINTR
	EINVAL          = syscall.EINVAL
	EISCONN         = syscall.EISCONN
	EMSGSIZE        = syscall.EMSGSIZE
	ENETDOWN        = syscall.ENETDOWN
	ENETUNREACH     = syscall.ENETUNREACH
	ENOPROTOOPT     = syscall.ENOPROTOOPT
	ENOTCONN        = syscall.ENOTCONN
	EOPNOTSUPP      = syscall.EOPNOTSUPP
	ENOENT          = syscall.ENOENT
	EPIPE           = syscall.EPIPE
	EPROTONOSUPPORT = syscall.EPROTONOSUPPORT
	EPROTOTYPE      = syscall.EPROTOTYPE
	ETIMEDOUT       = syscall.ETIMEDOUT
	EWOULDBLOCK     = syscall.EWOULDBLOCK
)
