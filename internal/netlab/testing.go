package netlab

import "os"

// TB is what Test needs of a testing.TB; an interface of our own keeps package testing out of the programs that build
// laboratories.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Test makes a laboratory for a test and closes it when the test ends. Without root it skips the test, or fails it where
// KIT_NO_SKIP=1 is set.
func Test(t TB, opts Options) *Lab {
	t.Helper()
	NeedRoot(t)
	lab, err := New(opts)
	if err != nil {
		t.Fatalf("make a laboratory: %v", err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("close the laboratory: %v", err)
		}
	})
	return lab
}

// NeedRoot skips the test for anybody but root, or fails it where KIT_NO_SKIP=1 is set.
func NeedRoot(t TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("KIT_NO_SKIP") == "1" {
		t.Fatalf("needs root, and KIT_NO_SKIP=1 allows no skip")
	}
	t.Skipf("needs root for network namespaces and XDP")
}
