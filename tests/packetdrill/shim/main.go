//go:build packetdrill

// Command shim is kit as the shared object that packetdrill loads by --so_filename: package host behind packetdrill's table of
// functions. Its C half, trampoline.c, holds one lock whenever it calls what is exported here.
//
//	go build -tags packetdrill -buildmode=c-shared -o kit.so ./tests/packetdrill/shim
package main

// #cgo CFLAGS: -Wall -Werror
// #cgo LDFLAGS: -ldl -lpthread
// #include "interface.h"
import "C"

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"kitnet.dev/kit/stack/wire"
	"kitnet.dev/kit/tests/packetdrill/host"
)

var h *host.Host

func main() {}

//export kitInit
func kitInit(flags *C.char) {
	words := ""
	if flags != nil {
		words = C.GoString(flags)
	}
	cfg, err := host.ParseFlags(words)
	if err != nil {
		fmt.Fprintf(os.Stderr, "kit: --so_flags: %v\n", err)
		os.Exit(2)
	}
	h = host.New(cfg)
}

//export kitBlocked
func kitBlocked() C.long { return host.Blocked }

//export kitEnded
func kitEnded(result *C.long) C.int {
	r, ok := h.Ended()
	if !ok {
		return 0
	}
	*result = C.long(r)
	return 1
}

//export kitOutlast
func kitOutlast() C.long { return C.long(h.Outlast()) }

//export kitSocket
func kitSocket(domain, kind, proto C.int) C.long {
	return C.long(h.Socket(int(domain), int(kind), int(proto)))
}

func addrPort(ip C.uint, port C.ushort) netip.AddrPort {
	return netip.AddrPortFrom(wire.Addr(ip).Netip(), uint16(port))
}

//export kitBind
func kitBind(fd C.int, ip C.uint, port C.ushort) C.long {
	return C.long(h.Bind(int(fd), addrPort(ip, port)))
}

//export kitListen
func kitListen(fd, backlog C.int) C.long { return C.long(h.Listen(int(fd), int(backlog))) }

//export kitAccept
func kitAccept(fd C.int) C.long { return C.long(h.Accept(int(fd))) }

//export kitPeer
func kitPeer(fd C.int, ip *C.uint, port *C.ushort) {
	peer := h.Peer(int(fd))
	a, _ := wire.AddrFrom(peer.Addr()) // 0 where there is none
	*ip, *port = C.uint(a), C.ushort(peer.Port())
}

//export kitConnect
func kitConnect(fd C.int, ip C.uint, port C.ushort) C.long {
	return C.long(h.Connect(int(fd), addrPort(ip, port)))
}

// buffers are the bytes that an iovec describes, false where an address is NULL. They are the caller's, and valid until its call
// has ended.
func buffers(v *C.struct_iovec, n C.int) (out [][]byte, ok bool) {
	for _, b := range unsafe.Slice(v, int(n)) {
		if b.iov_base == nil && b.iov_len > 0 {
			return nil, false
		}
		out = append(out, unsafe.Slice((*byte)(b.iov_base), int(b.iov_len)))
	}
	return out, true
}

// transfer calls f with the buffers of an iovec.
func transfer(v *C.struct_iovec, n C.int, f func(bufs [][]byte) int) C.long {
	bufs, ok := buffers(v, n)
	if !ok {
		return -C.long(syscall.EFAULT)
	}
	return C.long(f(bufs))
}

//export kitRead
func kitRead(fd C.int, v *C.struct_iovec, n, flags C.int) C.long {
	return transfer(v, n, func(bufs [][]byte) int { return h.Read(int(fd), bufs, int(flags)) })
}

//export kitWrite
func kitWrite(fd C.int, v *C.struct_iovec, n, flags C.int) C.long {
	return transfer(v, n, func(bufs [][]byte) int { return h.Write(int(fd), bufs, int(flags)) })
}

//export kitFcntl
func kitFcntl(fd, command, argument C.int) C.long {
	return C.long(h.Fcntl(int(fd), int(command), int(argument)))
}

//export kitIoctl
func kitIoctl(fd C.int, request C.ulong, value *C.int) C.long {
	n, r := h.Ioctl(int(fd), uint(request))
	if r == 0 {
		*value = C.int(n)
	}
	return C.long(r)
}

//export kitClose
func kitClose(fd C.int) C.long { return C.long(h.Close(int(fd))) }

//export kitShutdown
func kitShutdown(fd, how C.int) C.long { return C.long(h.Shutdown(int(fd), int(how))) }

//export kitOwns
func kitOwns(fd C.int) C.int {
	if h.Owns(int(fd)) {
		return 1
	}
	return 0
}

//export kitGetsockopt
func kitGetsockopt(fd, level, name C.int, value unsafe.Pointer, length *C.socklen_t) C.long {
	n, r := h.Getsockopt(int(fd), int(level), int(name), unsafe.Slice((*byte)(value), int(*length)))
	if r == 0 {
		*length = C.socklen_t(n)
	}
	return C.long(r)
}

//export kitSetsockopt
func kitSetsockopt(fd, level, name C.int, value unsafe.Pointer, length C.socklen_t) C.long {
	return C.long(h.Setsockopt(int(fd), int(level), int(name), C.GoBytes(value, C.int(length))))
}

//export kitPoll
func kitPoll(fds *C.struct_pollfd, n C.ulong, timeout C.int) C.long {
	list := unsafe.Slice(fds, int(n))
	return C.long(h.Poll(len(list), func(i int) (int, int16) { return int(list[i].fd), int16(list[i].events) },
		func(i int, revents int16) { list[i].revents = C.short(revents) }, int(timeout)))
}

//export kitInject
func kitInject(packet unsafe.Pointer, n C.size_t) C.long {
	if err := h.Inject(unsafe.Slice((*byte)(packet), int(n))); err != nil {
		fmt.Fprintf(os.Stderr, "kit: %v\n", err)
		return -1
	}
	return 0
}

//export kitTake
func kitTake(packet unsafe.Pointer, count *C.size_t, usecs *C.longlong) C.int {
	n, at, ok := h.Take(unsafe.Slice((*byte)(packet), int(*count)))
	if !ok {
		return 0
	}
	*count, *usecs = C.size_t(n), C.longlong(at)
	return 1
}

//export kitNow
func kitNow() C.longlong { return C.longlong(h.Now()) }

//export kitSleep
func kitSleep(until C.longlong) C.int {
	if h.Sleep(int64(until)) {
		return 1
	}
	return 0
}
