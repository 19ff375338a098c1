// gvisor-rival is gVisor's netstack as subjects of kit's benchmark (internal/bench). It is a module of its own, so that kit
// does not depend on gVisor.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"kitnet.dev/kit/internal/bench/child"
)

// endpoints make gVisor's links on an interface, by the subject's name.
var endpoints = map[string]func(*net.Interface) (stack.LinkEndpoint, error){
	"gVisor AF_XDP":    newXDP,
	"gVisor AF_PACKET": newPacket,
}

func main() {
	fmt.Fprintln(os.Stderr, "gvisor-rival:", run(os.Args[1:]))
	os.Exit(1)
}

// run serves until the process ends, or says why it can't.
func run(args []string) error {
	t, err := child.Begin(args)
	if err != nil {
		return err
	}
	// With one processor for goroutines, each wake of a thread that sleeps in poll waits until the others are done: gVisor's
	// round trip takes half as long again.
	runtime.GOMAXPROCS(2)
	return child.Run(t, serve)
}

// serve opens the link, puts a netstack with the task's address on it, and serves there.
func serve(t child.Task, c *child.Counters, ready func()) error {
	endpoint, ok := endpoints[t.Subject]
	if !ok {
		return fmt.Errorf("%q is not one of gVisor's links", t.Subject)
	}
	card, err := net.InterfaceByName(t.Interface)
	if err != nil {
		return err
	}
	link, err := endpoint(card)
	if err != nil {
		return err
	}
	ln, err := listen(link, t)
	if err != nil {
		return err
	}
	return child.ServeStream(ln, t, c, ready)
}
