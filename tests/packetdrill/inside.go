package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

const (
	// inside is the first argument of this program where it runs in a namespace just made: what follows is run there.
	inside = "inside-a-new-namespace"
	// preloadVariable tells it what to run that with.
	preloadVariable = "KIT_PACKETDRILL_PRELOAD"
)

// enter furnishes the namespace with the tun0 that scripts configure, which carries nothing, and becomes the command. The
// namespace goes when the command ends. It returns on failure alone. Not every kernel has dummy or tun devices; kit's tests
// need veth anyway.
func enter(command []string) error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "tun0", "type", "veth", "peer", "name", "far0"},
		{"link", "set", "tun0", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	env := append(os.Environ(), "LD_PRELOAD="+os.Getenv(preloadVariable))
	if err := syscall.Exec(command[0], command, env); err != nil {
		return fmt.Errorf("run %s: %w", command[0], err)
	}
	return nil
}
