package bench

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildArgument {
		os.Exit(ChildMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}
