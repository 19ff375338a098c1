package bench

import (
	"slices"

	"kitnet.dev/kit/internal/bench/child"
)

// Subject is one of the things that are compared. Each is served by a process of its own; whoever adds one adds it to
// Subjects.
type Subject struct {
	// Name in tables and options.
	Name string `json:"name"`
	// About is half a sentence for the reader.
	About string `json:"about"`
	// Missing says why the subject took no part, "" where it did.
	Missing string `json:"missing,omitempty"`

	// serve does the work in the child process.
	serve child.Serve
	// program is the other program that serves in serve's place, where there is one.
	program program
	// kernel says that the kernel's stack delivers the datagrams. Live frames then need NAPI on the receiving end, which
	// an XDP program of the subject's own would else switch on.
	kernel bool
	// roles are those that the subject can be in, and so say which workloads it takes part in.
	roles []Role
	// xdp says that an XDP program is all of it. What it sends arrives only where the other end has one too.
	xdp bool
	// owned says that the subject has an address that the kernel does not have, and answers ARP for it.
	owned bool
}

// program is a program beside this one that serves some subjects.
type program string

// The programs in C, which a run compiles, and the one of another module, which it is given.
const (
	recvmmsgProgram program = "recvmmsg"
	sendmmsgProgram program = "sendmmsg"
	streamProgram   program = "stream"
	gvisorProgram   program = "gvisor-rival"
)

// The names that ratios refer to.
const (
	xdpDropOnly = "XDP_DROP"
	xdpTXOnly   = "XDP_TX"
	rawXDP      = "raw AF_XDP"
	rawUnread   = "raw AF_XDP unread"
	rawCounter  = "raw AF_XDP one counter"
	recvmmsg    = "recvmmsg"
	sendmmsg    = "sendmmsg"
	goNet       = "Go net"
)

// kit's ways, which the goals are about: at its fastest, by batches and one at a time with datagrams, and with TCP.
const (
	kitHandler = "kit handler"
	kitBatch   = "kit batch"
	kitCalls   = "kit RecvFrom"
	kitTCP     = "kit TCP"
	kitd       = "kitd"
)

// recvmmsgSpin is the kernel's best: the caller's core does nothing but ask for datagrams.
const recvmmsgSpin = "recvmmsg spin"

// sendmmsgGSO is the kernel that cuts datagrams itself, which kit and AF_XDP have no equal to.
const sendmmsgGSO = "sendmmsg GSO"

// The rivals with TCP.
const (
	kernelTCP    = "kernel TCP"
	goNetTCP     = "Go net TCP"
	gvisorXDP    = "gVisor AF_XDP"
	gvisorPacket = "gVisor AF_PACKET"
)

// reference is what others are compared with: a subject or, of several of one kind, the best in the workload.
type reference struct {
	name string
	of   []string
}

// The references with TCP.
const (
	bestKernel = "best kernel"
	bestGVisor = "best gVisor"
)

// references are what all subjects are compared with, in the order of the tables.
var references = []reference{
	{rawXDP, []string{rawXDP}}, {recvmmsg, []string{recvmmsg}}, {sendmmsg, []string{sendmmsg}}, {goNet, []string{goNet}},
	{bestKernel, []string{kernelTCP, goNetTCP}}, {bestGVisor, []string{gvisorXDP, gvisorPacket}},
}

// What subjects can do.
var (
	bulkStreams = []Role{child.StreamsReceive, child.StreamsSend}
	datagrams   = []Role{Receive, Echo, Transmit}
	answers     = []Role{Receive, Echo}
	manySockets = []Role{Sockets, SocketsEcho, SocketsTransmit}
	streams     = []Role{child.StreamReceive, child.StreamSend, child.StreamEcho, child.StreamConnect, child.StreamRequest}
)

// Subjects returns all subjects in the order of the tables.
func Subjects() []Subject {
	return []Subject{
		{Name: kitHandler, About: "a handler on kit's engine, which answers in place", serve: serveKitHandler,
			roles: []Role{Receive, Echo, Sockets, SocketsEcho, Scaling, Engines}},
		{Name: kitBatch, About: "kit's ReadBatch and WriteBatch, 64 at a time or, from many sockets, 4", serve: serveKitBatch,
			roles: append([]Role{Engines, SocketsTransmit}, datagrams...)},
		{Name: kitCalls, About: "kit's RecvFrom and SendTo, one at a time", serve: serveKitCalls, roles: datagrams},
		{Name: rawXDP, About: "AF_XDP in Go by the same program and link, without a stack", serve: serveRawXDP,
			roles: append([]Role{Scaling, SocketsEcho}, datagrams...)},
		{Name: rawUnread, About: "the same that only counts descriptors", serve: serveRawXDP, roles: []Role{Receive}},
		{Name: rawCounter, About: "raw AF_XDP whose cores add each datagram to one counter", serve: serveRawXDP, roles: []Role{Scaling}},
		{Name: xdpDropOnly, About: "an XDP program that counts and drops", serve: serveXDP, xdp: true,
			roles: []Role{Receive, Scaling}},
		{Name: xdpTXOnly, About: "an XDP program that sends back", serve: serveXDP, xdp: true, roles: []Role{Echo}},
		{Name: recvmmsg, About: "the kernel's recvmmsg and sendmmsg, 64 at a time; many sockets with epoll", serve: serveRecvmmsg,
			program: recvmmsgProgram, kernel: true, roles: []Role{Receive, Echo, Sockets, SocketsEcho}},
		{Name: recvmmsgSpin, About: "the same without ever sleeping", serve: serveRecvmmsg,
			program: recvmmsgProgram, kernel: true, roles: answers},
		{Name: sendmmsg, About: "the kernel's sendmmsg, 64 at a time or, from many sockets, 4",
			program: sendmmsgProgram, kernel: true, roles: []Role{Transmit, SocketsTransmit}},
		{Name: sendmmsgGSO, About: "the same of messages that the kernel cuts into datagrams (UDP_SEGMENT), up to 64 each",
			program: sendmmsgProgram, kernel: true, roles: []Role{Transmit}},
		{Name: "Go batch", About: "golang.org/x/net ReadBatch and WriteBatch, 64 at a time", serve: serveGoBatch,
			kernel: true, roles: answers},
		{Name: goNet, About: "Go's net.UDPConn, one at a time", serve: serveGoNet, kernel: true,
			roles: append([]Role{Footprint}, datagrams...)},

		{Name: kitd, About: "kitd's daemon, and the sockets that it could have", serve: serveKitFootprint, owned: true,
			roles: []Role{Footprint}},

		{Name: kitTCP, About: "kit's net.Listener, a goroutine a connection", serve: serveKitStream,
			roles: slices.Concat([]Role{Engines}, streams, bulkStreams)},
		{Name: kernelTCP, About: "the kernel's TCP in C, blocking or, for many connections, with epoll",
			program: streamProgram, kernel: true, roles: slices.Concat(streams, bulkStreams)},
		{Name: goNetTCP, About: "the same of Go's net package", serve: serveGoStream, kernel: true,
			roles: slices.Concat(streams, bulkStreams)},
		{Name: gvisorXDP, About: "gVisor's netstack on its AF_XDP link endpoint", program: gvisorProgram, roles: streams, owned: true},
		{Name: gvisorPacket, About: "gVisor's netstack on its fdbased link endpoint, an AF_PACKET socket",
			program: gvisorProgram, roles: streams, owned: true},
	}
}

func subjectByName(name string) (Subject, bool) {
	for _, s := range Subjects() {
		if s.Name == name {
			return s, true
		}
	}
	return Subject{}, false
}
