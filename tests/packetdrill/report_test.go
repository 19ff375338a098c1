package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// Only a script of the list that is not excused makes the run fail.
func TestReport(t *testing.T) {
	of := func(name string, passed bool) result {
		return result{script: script{name: name}, passed: passed, why: "9: it differs", said: "noise\na.pkt:9: it differs\n"}
	}
	var out bytes.Buffer
	require.True(t, report(&out, []result{
		of("mss/x", false), of("fast_retransmit/fr-4pkt", true), of("fast_retransmit/fr-4pkt-other", false),
	}, false))
	require.Regexp(t, `(?m)^fast_retransmit +1 +1$`, out.String())
	require.Regexp(t, `(?m)^all +1 +2$`, out.String())
	require.Contains(t, out.String(), "mss/x\n  9: it differs\n")
	require.Contains(t, out.String(), "Of 1 scripts that fit kit 1 passed, 0 failed as documented and 0 failed.")

	out.Reset()
	require.False(t, report(&out, []result{of("ecn/ecn-uses-ect0", false)}, true))
	require.Contains(t, out.String(), "have to pass")
	require.Contains(t, out.String(), "  | noise\n  | a.pkt:9: it differs\n")

	exceptions["ecn/ecn-uses-ect0"] = "RFC 0"
	defer delete(exceptions, "ecn/ecn-uses-ect0")
	out.Reset()
	require.True(t, report(&out, []result{of("ecn/ecn-uses-ect0", false)}, false))
	require.Contains(t, out.String(), "an exception: RFC 0")
}

// A script of the list may have a longer name, but not where it is there by its own.
func TestFit(t *testing.T) {
	require.Equal(t, map[string]bool{"fast_retransmit/fr-4pkt": true},
		fit([]string{"fast_retransmit/fr-4pkt", "fast_retransmit/fr-4pkt-other", "mss/x"}))
	require.Equal(t, map[string]bool{"ecn/ecn-uses-ect0-v4": true}, fit([]string{"ecn/ecn-uses-ect0-v4", "ecn/ecn-uses-ect01"}))
	require.Equal(t, "kit has no TCP fast open (RFC 7413)", knownFor("fastopen/server/opt34/x"))
	require.Empty(t, knownFor("mss/x"))
	for _, name := range fitting {
		require.Empty(t, knownFor(name), "%s has to pass", name)
	}
	for name := range exceptions {
		require.Contains(t, fitting, name, "an exception to nothing")
	}
}

// Scripts are found below a folder, with what they say of themselves.
func TestFindScripts(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "gtests", "net", "tcp")
	for name, text := range map[string]string{
		"mss/a.pkt": "--local_ip=10.0.0.9\n0 x", "fastopen/client/b.pkt": "", "common/defaults.sh": "",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	found, err := findScripts(folder, regexp.MustCompile(""))
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "fastopen/client/b", found[0].name)
	require.Equal(t, "fastopen/client", found[0].folder())
	require.Equal(t, [2]string{"mss/a", "10.0.0.9"}, [2]string{found[1].name, found[1].local})
	_, err = findScripts(folder, regexp.MustCompile("nothing"))
	require.ErrorContains(t, err, "no scripts")
	require.Equal(t, "y/a", nameOf("/x/y/a.pkt"))
	require.Equal(t, "24: wrong", firstLine("sysctl: no\n\na.pkt:24: wrong\nmore", "/x/a.pkt"))
	const said = "a.pkt:9: error in Python code\nTraceback:\n    print(a); assert a == 1, a\n              ^^^^^^\nAssertionError: 2\n"
	require.Equal(t, "9: error in Python code: assert a == 1, a: AssertionError: 2", firstLine(said, "/x/a.pkt"))
	require.Equal(t, "sysctl: no", firstLine("\nsysctl: no\n", "/x/a.pkt"))
}

// Without its two arguments it says what it needs.
func TestNeeds(t *testing.T) {
	_, err := run(t.Context(), nil, nil)
	require.ErrorContains(t, err, "PACKETDRILL=")
	_, err = run(t.Context(), []string{"-packetdrill", "x", "-scripts", t.TempDir()}, nil)
	require.Error(t, err)
}
