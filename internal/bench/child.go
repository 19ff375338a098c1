package bench

import (
	"fmt"
	"os"

	"kitnet.dev/kit/internal/bench/child"
)

// What the processes of subjects and clients have in common.
type (
	task     = child.Task
	counters = child.Counters
	// Role is what a subject does.
	Role = child.Role
)

// The roles with datagrams.
const (
	Receive         = child.Receive
	Echo            = child.Echo
	Transmit        = child.Transmit
	Sockets         = child.Sockets
	SocketsEcho     = child.SocketsEcho
	SocketsTransmit = child.SocketsTransmit
	Scaling         = child.Scaling
	Engines         = child.Engines
	Footprint       = child.Footprint
)

// ChildArgument is what a program that has a command line of its own should put before the task, so that it knows a child
// process by its first argument: Options.Self is then /proc/self/exe and this.
const ChildArgument = "bench-child"

// clientSubject is the task of a client.
const clientSubject = "client"

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
	t, err := child.Begin(args)
	if err != nil {
		return err
	}
	if t.Subject == clientSubject {
		return clientMain(t)
	}
	if t.Role == Engines {
		return modelMain(t)
	}
	s, ok := subjectByName(t.Subject)
	if !ok || s.serve == nil {
		return fmt.Errorf("bench: %q is no subject that a child process can serve", t.Subject)
	}
	return child.Run(t, s.serve)
}
