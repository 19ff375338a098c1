package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A child process is told its task as JSON in its last argument, and then speaks lines:
//
//	child   ready                                 once it serves
//	parent  (an empty line)                       asks for the counters
//	child   received sent now user system         decimal; the last three in ns: CLOCK_MONOTONIC and CPU time used
//	parent  (end of file)                         the child ends
//
// A client only sends its result, one line of JSON, and ends.

// task is what a child process is to do.
type task struct {
	Subject   string         `json:"subject"` // or clientSubject
	Role      Role           `json:"role"`
	Interface string         `json:"interface"`
	Address   netip.AddrPort `json:"address"` // where a subject serves, and whom a client asks
	CPU       int            `json:"cpu"`
	Payload   int            `json:"payload"`  // bytes that a client sends
	Spin      bool           `json:"spin"`     // whether a client spins
	Duration  time.Duration  `json:"duration"` // of a client's asking
}

// Role is what a subject does with a datagram.
type Role string

// A subject counts what it receives, or sends each datagram back.
const (
	Receive Role = "receive"
	Echo    Role = "echo"
)

// ChildArgument is what a program that has a command line of its own should put before the task, so that it knows a child
// process by its first argument: Options.Self is then /proc/self/exe and this.
const ChildArgument = "bench-child"

// clientSubject is the task of the round trip's client.
const clientSubject = "client"

// counters are a subject's, each on a cache line of its own: one thread counts, another reads.
type counters struct {
	received atomic.Uint64
	_        [56]byte
	sent     atomic.Uint64
	_        [56]byte
}

// ChildMain is the main function of a child process; args is the task alone. It returns the exit status. The program
// that calls Run calls ChildMain in a process that was started with Options.Self.
func ChildMain(args []string) int {
	if err := childMain(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childMain(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("bench: a child process takes one argument, its task, but got %d", len(args))
	}
	var t task
	if err := json.Unmarshal([]byte(args[0]), &t); err != nil {
		return fmt.Errorf("bench: read the child's task: %w", err)
	}
	if err := pinProcess(t.CPU); err != nil {
		return err
	}
	if t.Subject == clientSubject {
		return askMain(t)
	}
	s, ok := subjectByName(t.Subject)
	if !ok || s.serve == nil {
		return fmt.Errorf("bench: %q is no subject that a child process can serve", t.Subject)
	}
	var c counters
	failed := make(chan error, 1)
	ready := make(chan struct{})
	go func() { failed <- s.serve(t, &c, func() { close(ready) }) }()
	select {
	case err := <-failed:
		return fmt.Errorf("bench: serve %s as %s: %w", t.Role, t.Subject, err)
	case <-ready:
	}
	fmt.Println("ready")
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			fmt.Println(c.line())
		}
		// The process's end gives back all that the subject holds.
		os.Exit(0)
	}()
	return fmt.Errorf("bench: serve %s as %s: %w", t.Role, t.Subject, <-failed)
}

// line is the counters as the parent reads them.
func (c *counters) line() string {
	var now unix.Timespec
	var usage unix.Rusage
	// Neither call can fail with these arguments.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return fmt.Sprintf("%d %d %d %d %d", c.received.Load(), c.sent.Load(), now.Nano(), usage.Utime.Nano(), usage.Stime.Nano())
}
