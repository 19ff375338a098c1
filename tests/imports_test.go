package tests

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "kitnet.dev/kit"

// rooms says which packages of ours each package may import, and why it stops there. A package that is not named may import
// anything of ours: it wires.
var rooms = []struct {
	pkg string
	may []string
	why string
}{
	{"stack/clock", nil, "time is below everything"},
	{"stack/wire", []string{"stack/clock"}, "formats know of no state"},
	{"stack/ring", []string{"stack/clock"}, "rings carry bytes, whoever's"},
	{"stack/linktest", nil, "a wire that knew the stack could not judge it"},
	{"stack/pcapng", nil, "a file format"},
	{"stack/tcp", []string{"stack/clock", "stack/wire", "stack/ring"}, "segments and moments in, segments and a deadline out: no sockets, links or engines"},
	{"stack", []string{"stack/clock", "stack/wire", "stack/ring", "stack/tcp"}, "the engine runs over any Link, without a card, root or kernel"},
	{"bpf", nil, "the program and its tables are judged alone, by test runs"},
	{"loader", []string{"bpf"}, "AF_XDP without a stack is useful alone, and is the floor that the benchmark measures"},
	{"kernel", []string{"stack", "stack/wire"}, "what the kernel says is told in the stack's terms"},
	{"socketapi", []string{"stack", "stack/clock", "stack/wire", "stack/ring", "stack/tcp"}, "the contract holds over any stack"},
	{"internal/instructions", nil, "what counts must not depend on what is counted"},
	{"internal/netlab", nil, "a laboratory must not depend on what is tried in it"},
}

// outside says which packages may import a library that has no business elsewhere.
var outside = []struct {
	path string
	may  []string
}{
	{"github.com/cilium/ebpf", []string{"bpf", "loader", "internal/netlab", "internal/bench"}},
	{"github.com/vishvananda/netlink", []string{"kernel", "loader", "internal/netlab", "internal/bench", "cmd/kitd"}},
	{"github.com/spf13/cobra", []string{"cmd/kitd"}},
	{"github.com/prometheus/client_golang", []string{"cmd/kitd"}},
	{"github.com/stretchr/testify", nil},
	{"github.com/gopacket/gopacket", nil},
}

type listed struct {
	ImportPath string
	Imports    []string
	CgoFiles   []string
}

// The import rule (ARCHITECTURE.md, "Rooms"): a room that reaches for another's internals cannot be tested alone.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,CgoFiles", module+"/...").Output()
	require.NoError(t, err)
	seen := make(map[string]bool)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		seen[name] = true
		require.Empty(t, p.CgoFiles, "%s uses cgo: kit is pure Go", name)
		for _, imp := range p.Imports {
			checkOurs(t, name, imp)
			checkOutside(t, name, imp)
		}
	}
	for _, r := range rooms {
		require.True(t, seen[r.pkg], "the rule names package %s, which does not exist", r.pkg)
	}
}

func checkOurs(t *testing.T, name, imp string) {
	ours, ok := strings.CutPrefix(imp, module+"/")
	if !ok {
		return
	}
	for _, r := range rooms {
		if r.pkg == name {
			require.True(t, slices.Contains(r.may, ours), "%s imports %s: %s", name, ours, r.why)
		}
	}
}

func checkOutside(t *testing.T, name, imp string) {
	for _, o := range outside {
		if imp != o.path && !strings.HasPrefix(imp, o.path+"/") {
			continue
		}
		ok := slices.ContainsFunc(o.may, func(m string) bool { return name == m || strings.HasPrefix(name, m+"/") })
		require.True(t, ok, "%s imports %s, which belongs in %v and in tests", name, imp, o.may)
	}
}
