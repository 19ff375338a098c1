package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether somebody reads along.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// home puts the cursor to the upper left corner and clears what is below.
const home = "\x1b[H\x1b[J"
