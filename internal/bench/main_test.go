package bench

import (
	"os"
	"testing"
)

// childArgument makes a copy of this test binary a child process.
const childArgument = "bench-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArgument {
		os.Exit(ChildMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}
