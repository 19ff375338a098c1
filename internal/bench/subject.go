package bench

// Subject is one of the things that are compared. Each is served by a process of its own; whoever adds one adds it to
// Subjects.
type Subject struct {
	// Name in tables and options.
	Name string `json:"name"`
	// About is half a sentence for the reader.
	About string `json:"about"`

	// serve does the work in the child process: it calls ready when datagrams are received, counts, and returns only on
	// failure.
	serve func(t task, c *counters, ready func()) error
	// kernel says that the kernel's stack delivers the datagrams. Live frames then need NAPI on the receiving end, which
	// an XDP program of the subject's own would else switch on.
	kernel bool
}

// The names that ratios refer to.
const (
	rawXDP   = "raw AF_XDP"
	recvmmsg = "recvmmsg"
	goNet    = "Go net"
)

// kitHandler is kit at its fastest, which the goals are about.
const kitHandler = "kit handler"

// recvmmsgSpin is the kernel's best: the caller's core does nothing but ask for datagrams.
const recvmmsgSpin = "recvmmsg spin"

// references are the subjects that all others are compared with.
var references = []string{rawXDP, recvmmsg, goNet}

// Subjects returns all subjects in the order of the tables.
func Subjects() []Subject {
	return []Subject{
		{Name: kitHandler, About: "a handler on kit's engine, which answers in place", serve: serveKitHandler},
		{Name: "kit batch", About: "kit's ReadBatch and WriteBatch, 64 at a time", serve: serveKitBatch},
		{Name: "kit RecvFrom", About: "kit's RecvFrom and SendTo, one at a time", serve: serveKitCalls},
		{Name: rawXDP, About: "AF_XDP in Go by the same program and link, without a stack", serve: serveRawXDP},
		{Name: recvmmsg, About: "the kernel's recvmmsg and sendmmsg, 64 at a time", serve: serveRecvmmsg, kernel: true},
		{Name: recvmmsgSpin, About: "the same without ever sleeping", serve: serveRecvmmsg, kernel: true},
		{Name: "Go batch", About: "golang.org/x/net ReadBatch and WriteBatch, 64 at a time", serve: serveGoBatch, kernel: true},
		{Name: goNet, About: "Go's net.UDPConn, one at a time", serve: serveGoNet, kernel: true},
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
