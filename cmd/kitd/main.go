// Command kitd holds a network card for kit: it takes the packets of bound ports
// off the card before the kernel sees them, and leaves all others to the kernel.
// 'kitd help' lists what it can do.
package main

import (
	"context"
	"os"

	"kitnet.dev/kit/cmd/kitd/internal/cli"
)

func main() {
	os.Exit(cli.System().Main(context.Background(), os.Args[1:]))
}
