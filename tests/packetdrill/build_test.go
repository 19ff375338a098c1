package main

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The shim builds, exports what packetdrill looks for, and a program that stands in for packetdrill finds it to work: errno,
// descriptors, calls that wait on a second thread, TCP_INFO by libc's name, and time.
func TestShim(t *testing.T) {
	folder := t.TempDir()
	tools, err := build(t.Context(), folder)
	require.NoError(t, err)

	so, err := elf.Open(tools.shim)
	require.NoError(t, err)
	symbols, err := so.DynamicSymbols()
	require.NoError(t, err)
	require.NoError(t, so.Close())
	var found *elf.Symbol
	for _, s := range symbols {
		if s.Name == "packetdrill_interface_init" {
			found = &s
		}
	}
	require.NotNil(t, found, "the symbol is exported")
	require.NotEqual(t, elf.SHN_UNDEF, found.Section)

	driver := filepath.Join(folder, "driver")
	out, err := exec.Command("gcc", "-Wall", "-O1", "-o", driver, "testdata/driver.c", "-ldl", "-lpthread").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for range 5 { // the two threads may meet in many ways
		cmd := exec.Command(driver, tools.shim)
		cmd.Env = append(cmd.Environ(), "LD_PRELOAD="+tools.preload)
		out, err = cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, "ok\n", string(out))
	}
}
