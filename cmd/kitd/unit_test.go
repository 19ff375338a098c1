package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/internal/netlab"
)

// unitOptions reads the unit file as section/name to values.
func unitOptions(t *testing.T) map[string][]string {
	t.Helper()
	f, err := os.Open("kitd@.service")
	require.NoError(t, err)
	defer f.Close()
	list, err := unit.DeserializeOptions(f)
	require.NoError(t, err)
	options := map[string][]string{}
	for _, o := range list {
		key := o.Section + "/" + o.Name
		options[key] = append(options[key], o.Value)
	}
	return options
}

func TestUnitFile(t *testing.T) {
	o := unitOptions(t)
	require.Equal(t, []string{"notify"}, o["Service/Type"])
	require.Equal(t, []string{"infinity"}, o["Service/LimitMEMLOCK"])
	require.Equal(t, o["Service/AmbientCapabilities"], o["Service/CapabilityBoundingSet"])
	require.Contains(t, o["Service/RestrictAddressFamilies"][0], "AF_XDP")
	require.Contains(t, o["Service/SystemCallFilter"][0], "bpf")

	text, err := os.ReadFile("kitd@.service")
	require.NoError(t, err)
	for name := range strings.FieldsSeq(o["Service/AmbientCapabilities"][0]) {
		require.Regexp(t, `(?m)^#.*\b`+name+`\b`, string(text), "why each is needed stands beside it")
	}

	// Its command line is one that kitd takes: it gets as far as the card.
	arguments := strings.Fields(strings.NewReplacer("%I", "nonesuch0", "%i", "nonesuch0", "/run/kitd", t.TempDir()).Replace(o["Service/ExecStart"][0]))
	require.Equal(t, "/usr/local/sbin/kitd", arguments[0])
	_, complaint, status := command(t, arguments[1:]...)
	require.Equal(t, 1, status, complaint)
	require.Contains(t, complaint, "nonesuch0")
}

// TestUnitFileVerifies has systemd itself read it, where there is one.
func TestUnitFileVerifies(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		require.NotEmpty(t, unitOptions(t), "no systemd here: that Go reads it must do")
		return
	}
	text, err := os.ReadFile("kitd@.service")
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "kitd@lo.service")
	require.NoError(t, os.WriteFile(copied, []byte(strings.ReplaceAll(string(text), "/usr/local/sbin/kitd", binary)), 0o644))
	out, err := exec.Command(tool, "verify", "--man=no", copied).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "kitd@", "systemd complains of it")
}

// capability numbers by name, of those that the unit gives.
var capabilities = map[string]uintptr{
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_BPF": unix.CAP_BPF,
	"CAP_PERFMON": unix.CAP_PERFMON, "CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_SETPCAP": unix.CAP_SETPCAP,
}

// TestUnitCapabilitiesSuffice runs kitd as nobody with what the unit gives it,
// CAP_IPC_LOCK standing in for LimitMEMLOCK=infinity.
func TestUnitCapabilitiesSuffice(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	given := []uintptr{unix.CAP_IPC_LOCK}
	for name := range strings.FieldsSeq(unitOptions(t)["Service/AmbientCapabilities"][0]) {
		require.Contains(t, capabilities, name)
		given = append(given, capabilities[name])
	}
	slices.Sort(given)
	const nobody = 65534
	p := launch(t, lab.Left, &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: given,
	}, "--serve", "udp-echo=:7")
	p.ready()
	wantAnswer(t, client(t, lab.Right, lab.Left.Addr().String()+":7"), "hello")
	s := noun[control.Status](p, "status")
	require.Equal(t, []string{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"}, s.Capabilities)
	require.Empty(t, s.Degraded)
	p.stop()
}

func TestWithoutCapabilities(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	p := launch(t, lab.Left, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	require.Equal(t, 1, p.wait())
	require.Contains(t, p.log(), "CAP_", "it says what is missing")
	require.Equal(t, 1, strings.Count(p.log(), "kitd: "))
}
