// Package child is what the processes of the benchmark have in common, those of other modules too: the task, the lines that
// they speak, and the server of TCP's subjects in Go.
//
// A process is told its task as JSON in its last argument, and then speaks lines:
//
//	child   ready                                 once it serves
//	parent  (an empty line)                       asks for the counters
//	child   received sent now user system …       decimal; the last three in ns: CLOCK_MONOTONIC and CPU time used; and more
//	parent  (end of file)                         the child ends
package child

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Task is what a child process is to do.
type Task struct {
	Subject   string         `json:"subject"` // or that of a client
	Role      Role           `json:"role"`    // the subject's; a client does what it asks for
	Interface string         `json:"interface"`
	Address   netip.AddrPort `json:"address"` // where a subject serves, and whom a client asks
	Bits      int            `json:"bits"`    // the length of the prefix that the card's network has
	Peer      netip.AddrPort `json:"peer"`    // to whom a subject transmits
	PeerMAC   []byte         `json:"peer_mac"`
	CPU       int            `json:"cpu"`
	Cores     []int          `json:"cores"`    // in place of CPU, those of a subject with an engine on each
	Payload   int            `json:"payload"`  // bytes that a client sends, or a subject that transmits
	Spin      bool           `json:"spin"`     // whether a client spins
	Workers   int            `json:"workers"`  // connections under way at a time
	Duration  time.Duration  `json:"duration"` // of a client's asking
	Sockets   int            `json:"sockets"`  // that a subject has
	Engines   []int          `json:"engines"`  // how many a model has, one number after the other
}

// Role is what a subject does.
type Role string

// With datagrams a subject counts what it receives, sends each back, sends all that it can, does one of the three with many
// sockets, or counts what it receives on many cores; or it is a model of itself with many engines. With TCP it reads and throws
// away, writes all that it can, sends back what comes on one connection after the other, or does one of these for many
// connections at a time: of the last, for short connections or such that stay.
const (
	Receive         Role = "receive"
	Echo            Role = "echo"
	Transmit        Role = "transmit"
	Sockets         Role = "sockets"
	SocketsEcho     Role = "sockets-echo"
	SocketsTransmit Role = "sockets-transmit"
	Scaling         Role = "scaling"
	Engines         Role = "engines"
	Footprint       Role = "footprint"
	StreamReceive   Role = "stream-receive"
	StreamSend      Role = "stream-send"
	StreamEcho      Role = "stream-echo"
	StreamConnect   Role = "stream-connect"
	StreamRequest   Role = "stream-request"
	StreamsReceive  Role = "streams-receive"
	StreamsSend     Role = "streams-send"
)

// A subject of the workload footprint is in one of these roles after the other: it opens so many sockets of a kind, and its
// counters then say how many there are and how many bytes of its memory each costs.
const (
	FootprintUDP        Role = "footprint-udp"
	FootprintListener   Role = "footprint-listener"
	FootprintConnection Role = "footprint-connection"
)

// Counters are a subject's, in datagrams or, with TCP, in bytes; each is on a cache line of its own: one thread counts,
// another reads.
type Counters struct {
	Received atomic.Uint64
	_        [56]byte
	Sent     atomic.Uint64
	_        [56]byte
	// Update, if a subject has set it before it was ready, brings the others up to date before they are read, and More.
	Update func()
	// More are further numbers, of a role's own, at the line's end.
	More []float64
}

// Serve does a subject's work: it calls ready when it can be asked, counts, and returns only on failure.
type Serve func(t Task, c *Counters, ready func()) error

// Begin reads the task, the process's only argument, and binds the process to the core, or to the cores, that it names.
func Begin(args []string) (t Task, err error) {
	if len(args) != 1 {
		return t, fmt.Errorf("bench: a child process takes one argument, its task, but got %d", len(args))
	}
	if err := json.Unmarshal([]byte(args[0]), &t); err != nil {
		return t, fmt.Errorf("bench: read the child's task: %w", err)
	}
	if len(t.Cores) == 0 {
		return t, pin(t.CPU)
	}
	return t, pin(t.Cores...)
}

// Run serves until the input ends, and then ends the process. It returns only on failure.
func Run(t Task, serve Serve) error {
	var c Counters
	failed := make(chan error, 1)
	ready := make(chan struct{})
	go func() { failed <- serve(t, &c, func() { close(ready) }) }()
	select {
	case err := <-failed:
		return fmt.Errorf("bench: %s as %s: %w", t.Role, t.Subject, err)
	case <-ready:
	}
	fmt.Println("ready")
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if c.Update != nil {
				c.Update()
			}
			fmt.Println(c.line())
		}
		// The process's end gives back all that the subject holds.
		os.Exit(0)
	}()
	return fmt.Errorf("bench: %s as %s: %w", t.Role, t.Subject, <-failed)
}

// line is the counters as the parent reads them.
func (c *Counters) line() string {
	var now unix.Timespec
	var usage unix.Rusage
	// Neither call can fail with these arguments.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	line := fmt.Appendf(nil, "%d %d %d %d %d", c.Received.Load(), c.Sent.Load(), now.Nano(), usage.Utime.Nano(), usage.Stime.Nano())
	for _, n := range c.More {
		line = fmt.Appendf(line, " %g", n)
	}
	return string(line)
}

// Command makes the command line of a child process: the program, its own arguments, and the task.
func Command(program []string, t Task) (*exec.Cmd, error) {
	arg, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("bench: write the child's task: %w", err)
	}
	return exec.Command(program[0], append(program[1:len(program):len(program)], string(arg))...), nil
}

// Ahead is the nice value of everything that takes part in a measurement, so that other work on the machine costs it
// little.
const Ahead = -20

// pin binds the whole process to some cores and puts it ahead of other work. Threads that run already stay as they are, and the
// Go runtime has counted its CPUs, so the process starts itself anew once bound.
func pin(cores ...int) error {
	var have, want unix.CPUSet
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return fmt.Errorf("bench: read own CPU affinity: %w", err)
	}
	for _, cpu := range cores {
		want.Set(cpu)
	}
	// The system call returns 20 less the nice value, so that no value looks like an error (getpriority(2)).
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0); have == want && err == nil && 20-nice == Ahead {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, Ahead); err != nil {
		return fmt.Errorf("bench: go ahead of other work (needs CAP_SYS_NICE): %w", err)
	}
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return fmt.Errorf("bench: bind to CPU %s: %w", numbers(cores), err)
	}
	if err := unix.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fmt.Errorf("bench: start anew on CPU %s: %w", numbers(cores), err)
	}
	return nil
}

// numbers writes them with spaces between.
func numbers(cores []int) string { return strings.Trim(fmt.Sprint(cores), "[]") }
