package bench

import "kitnet.dev/kit/internal/bench/child"

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
	// stream says that the subject speaks TCP and takes part in the workloads with TCP; the others are for datagrams.
	stream bool
	// owned says that the subject has an address that the kernel does not have, and answers ARP for it.
	owned bool
}

// program is a program beside this one that serves some subjects.
type program string

// The programs in C, which a run compiles, and the one of another module, which it is given.
const (
	recvmmsgProgram program = "recvmmsg"
	streamProgram   program = "stream"
	gvisorProgram   program = "gvisor-rival"
)

// The names that ratios refer to.
const (
	rawXDP   = "raw AF_XDP"
	recvmmsg = "recvmmsg"
	goNet    = "Go net"
)

// kitHandler is kit at its fastest, which the goals about datagrams are about, and kitTCP what those about TCP are about.
const (
	kitHandler = "kit handler"
	kitTCP     = "kit TCP"
)

// recvmmsgSpin is the kernel's best: the caller's core does nothing but ask for datagrams.
const recvmmsgSpin = "recvmmsg spin"

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
	{rawXDP, []string{rawXDP}}, {recvmmsg, []string{recvmmsg}}, {goNet, []string{goNet}},
	{bestKernel, []string{kernelTCP, goNetTCP}}, {bestGVisor, []string{gvisorXDP, gvisorPacket}},
}

// Subjects returns all subjects in the order of the tables.
func Subjects() []Subject {
	return []Subject{
		{Name: kitHandler, About: "a handler on kit's engine, which answers in place", serve: serveKitHandler},
		{Name: "kit batch", About: "kit's ReadBatch and WriteBatch, 64 at a time", serve: serveKitBatch},
		{Name: "kit RecvFrom", About: "kit's RecvFrom and SendTo, one at a time", serve: serveKitCalls},
		{Name: rawXDP, About: "AF_XDP in Go by the same program and link, without a stack", serve: serveRawXDP},
		{Name: recvmmsg, About: "the kernel's recvmmsg and sendmmsg, 64 at a time", serve: serveRecvmmsg,
			program: recvmmsgProgram, kernel: true},
		{Name: recvmmsgSpin, About: "the same without ever sleeping", serve: serveRecvmmsg, program: recvmmsgProgram, kernel: true},
		{Name: "Go batch", About: "golang.org/x/net ReadBatch and WriteBatch, 64 at a time", serve: serveGoBatch, kernel: true},
		{Name: goNet, About: "Go's net.UDPConn, one at a time", serve: serveGoNet, kernel: true},

		{Name: kitTCP, About: "kit's net.Listener, a goroutine a connection", serve: serveKitStream, stream: true},
		{Name: kernelTCP, About: "the kernel's TCP in C, blocking or, for many connections, with epoll",
			program: streamProgram, kernel: true, stream: true},
		{Name: goNetTCP, About: "the same of Go's net package", serve: serveGoStream, kernel: true, stream: true},
		{Name: gvisorXDP, About: "gVisor's netstack on its AF_XDP link endpoint", program: gvisorProgram, stream: true, owned: true},
		{Name: gvisorPacket, About: "gVisor's netstack on its fdbased link endpoint, an AF_PACKET socket",
			program: gvisorProgram, stream: true, owned: true},
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
