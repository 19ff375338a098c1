package config

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// load runs Load as kitd run does, on a command line and a file's text.
func load(t *testing.T, args, file string) (*Config, error) {
	t.Helper()
	var s Sources
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	Register(flags, &s)
	if file != "" {
		path := filepath.Join(t.TempDir(), "kitd.toml")
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		args += " --config " + path
	}
	if err := flags.Parse(strings.Fields(args)); err != nil {
		return nil, err
	}
	return Load(s)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, "", "")
	require.NoError(t, err)
	c.texts = nil
	require.Equal(t, &Config{Attach: "auto", Copy: "auto", TxChecksum: "auto", Wait: "adaptive", Control: "/run/kitd.sock", Log: "text"}, c)
	require.Error(t, c.RequireInterface())
	require.False(t, c.Owned())
}

const everything = `
interface = "eth7"
address = ["10.0.0.5/24", "10.0.0.6/24"]
gateway = "10.0.0.1"
serve = ["udp-echo=:7", "udp-discard=10.0.0.6:9"]
attach = "native"
copy = "zerocopy"
tx-checksum = "off"
queues = [0, 2]
wait = "adaptive"
spin = "20us"
control = "/tmp/c.sock"
metrics = "127.0.0.1:9100"
mtu = 1500
frame-size = 4096
frames = 8192
ring-size = 4096
log = "json"
log-level = "debug"
`

func TestFileHoldsEveryOption(t *testing.T) {
	c, err := load(t, "", everything)
	require.NoError(t, err)
	require.Len(t, c.texts, len(options))
	c.texts = nil
	require.Equal(t, &Config{
		Interface: "eth7", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("10.0.0.6/24")},
		Gateway:  netip.MustParseAddr("10.0.0.1"),
		Services: []Service{{Name: "udp-echo", Port: 7}, {Name: "udp-discard", Addr: netip.MustParseAddr("10.0.0.6"), Port: 9}},
		Attach:   "native", Copy: "zerocopy", TxChecksum: "off", Queues: []int{0, 2}, Wait: "adaptive", Spin: 20 * time.Microsecond,
		Control: "/tmp/c.sock", Metrics: "127.0.0.1:9100", MTU: 1500, FrameSize: 4096, Frames: 8192, RingSize: 4096,
		Log: "json", LogLevel: slog.LevelDebug,
	}, c)
	for i := range options {
		require.Contains(t, everything, "\n"+options[i].name+" =", "the text above has every option")
	}
}

func TestFlagsWin(t *testing.T) {
	c, err := load(t, "-i eth0 --serve udp-echo=:7007 --queues all --attach auto --attach generic --address 10.0.0.7/24", everything)
	require.NoError(t, err)
	require.Equal(t, "eth0", c.Interface)
	require.Equal(t, "generic", c.Attach, "the last of a flag that does not repeat")
	require.Nil(t, c.Queues)
	require.Equal(t, []Service{{Name: "udp-echo", Port: 7007}}, c.Services, "a list is replaced whole")
	require.Len(t, c.Addresses, 1)
	require.Equal(t, "zerocopy", c.Copy, "what no flag says is the file's")
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ args, file, want string }{
		{"--attach fast", "", `"fast" for "--attach" flag: is none of auto, native, generic`},
		{"", `attach = "fast"`, `kitd.toml: attach "fast" is none of auto, native, generic`},
		{"", `atach = "auto"`, `kitd.toml: key "atach" is not known; did you mean "attach"?`},
		{"", `framesize = 2048`, `key "framesize" is not known; did you mean "frame-size"?`},
		{"", `log_level = "info"`, `key "log_level" is not known; did you mean "log-level"?`},
		{"", "[serve]\nudp-echo = 7", `kitd.toml: serve is neither a string nor a number nor a list of those`},
		{"", `attach = ["auto"]`, `kitd.toml: attach takes one value, not a list`},
		{"", `serve = [1.5]`, `serve is neither a string nor a number nor a list of those`},
		{"", `interface = eth0`, `kitd.toml is not TOML: toml: `},
		{"--config /nonexistent/kitd.toml", "", "configuration file /nonexistent/kitd.toml can't be read: no such file or directory"},
		{"--address 10.0.0.5", "", "is not an IPv4 address with a prefix length, such as 10.0.0.5/24"},
		{"--address fe80::1/64", "", "is not an IPv4 address with a prefix length"},
		{"--address 10.0.0.0/24", "", "address 10.0.0.0/24 is its network's own: use one inside the network"},
		{"--address 10.0.0.255/24", "", "address 10.0.0.255/24 is its network's broadcast address: use one inside the network"},
		{"--address 127.0.0.1/8", "", "address 127.0.0.1 can't be a host's"},
		{"--address 10.0.0.5/0", "", "has prefix length 0"},
		{"--address 10.0.0.5/24 --address 10.0.0.5/16", "", "address 10.0.0.5 is given twice: leave one out"},
		{"--gateway kit", "", "is not an IPv4 address"},
		{"--gateway 10.0.0.1", "", "gateway 10.0.0.1 needs an --address: without one kit uses the kernel's addresses and its routes"},
		{"--gateway 10.0.0.5 --address 10.0.0.5/24", "", "gateway 10.0.0.5 is one of the addresses given: use the router's"},
		{"--gateway 10.0.1.1 --address 10.0.0.5/24", "", "gateway 10.0.1.1 is in the network of no --address: use one that the card reaches directly"},
		{"--serve udp-echo", "", "is not NAME=ADDR, such as udp-echo=:7"},
		{"--serve udp-ecko=:7", "", "is no service of kitd; did you mean udp-echo? There are udp-echo, udp-discard, udp-chargen"},
		{"--serve udp-echo=7", "", "has no address and port behind =, such as :7 or 10.0.0.5:7"},
		{"--serve udp-echo=:0", "", "has no address and port behind ="},
		{"--serve udp-echo=:70000", "", "has no address and port behind ="},
		{"--serve udp-echo=localhost:7", "", "has no IPv4 address behind ="},
		{"--serve udp-echo=:7 --serve udp-discard=10.0.0.5:7", "", "services udp-echo=:7 and udp-discard=10.0.0.5:7 want the same port"},
		{"--serve udp-echo=10.0.0.6:7 --address 10.0.0.5/24", "", "service udp-echo=10.0.0.6:7 is at an address that kit does not own: add it as --address or use udp-echo=:7"},
		{"--queues 0,x", "", "is neither all nor a list of queue numbers such as 0,1"},
		{"--queues 0,0", "", "names queue 0 twice"},
		{"--spin 1s", "", "is not a time from 1ns to 10ms, such as 50us"},
		{"--spin 50us --wait busy", "", "--spin is for --wait adaptive, and --wait is busy: leave one of them out"},
		{"--metrics 9100", "", "is not an address with a port, such as 127.0.0.1:9100"},
		{"--metrics kit.example:9100", "", "is not an address with a port"},
		{"--control " + strings.Repeat("x", 200), "", "can't be a path: use 1 to 107 bytes"},
		{"--frame-size 3000", "", "frame-size 3000 can't be registered with AF_XDP: use 2048 or 4096"},
		{"--frames 50000", "", "frames 50000 is more than the 32768 that the rings hold: use less"},
		{"--ring-size 100", "", "ring-size 100 is not a power of two from 64 to 16384"},
		{"--ring-size 32768", "", "ring-size 32768 is not a power of two from 64 to 16384"},
		{"--frames 1024", "", "frames 1024 can't fill a receive and a transmit ring of 4096 each: use frames 8192 or more, or a smaller ring-size"},
		{"--mtu 60", "", "mtu 60 is not from 68 to 65535 bytes"},
		{"--mtu 70000", "", "mtu 70000 is not from 68 to 65535 bytes"},
		{"--mtu zero", "", "is not a positive number"},
		{"--log xml", "", "is none of text, json"},
		{"--log-level loud", "", "is none of debug, info, warn, error"},
		{"", `mtu = -5`, "mtu \"-5\" is not a positive number"},
	} {
		_, err := load(t, c.args, c.file)
		require.ErrorContains(t, err, c.want, "%s %s", c.args, c.file)
	}
}

func TestAllProblemsAreSaidAtOnce(t *testing.T) {
	_, err := load(t, "--frame-size 1000 --ring-size 1000 --gateway 10.0.0.1 --mtu 5", "")
	require.Len(t, strings.Split(err.Error(), "\n"), 4)
	_, err = load(t, "", "atach = 1\nmtuu = 2\nserve = 5.5")
	require.Len(t, strings.Split(err.Error(), "\n"), 3)
}

func TestChanges(t *testing.T) {
	old, err := load(t, "-i eth0 --serve udp-echo=:7", "")
	require.NoError(t, err)
	same, err := load(t, "-i eth0 --serve udp-echo=:7", "")
	require.NoError(t, err)
	live, restart := Changes(old, same)
	require.Empty(t, live)
	require.Empty(t, restart)
	other, err := load(t, "-i eth0 --serve udp-echo=:8 --log-level debug --mtu 1400 --wait busy", "")
	require.NoError(t, err)
	live, restart = Changes(old, other)
	require.Equal(t, []string{"serve", "log-level"}, live)
	require.Equal(t, []Fixed{
		{"wait", "the engines run with the old one"}, {"mtu", "the card was opened with the old one"},
	}, restart)

	now := old.Adopt(other)
	require.Equal(t, uint16(8), now.Services[0].Port)
	require.Equal(t, slog.LevelDebug, now.LogLevel)
	require.Equal(t, "adaptive", now.Wait)
	require.Zero(t, now.MTU)
	live, restart = Changes(now, other)
	require.Empty(t, live, "what was adopted is no change any more")
	require.Equal(t, []Fixed{
		{"wait", "the engines run with the old one"}, {"mtu", "the card was opened with the old one"},
	}, restart)
	require.Equal(t, uint16(7), old.Services[0].Port)
}

func TestFlagShowsWhatWasGiven(t *testing.T) {
	var s Sources
	flags := pflag.NewFlagSet("check", pflag.ContinueOnError)
	Register(flags, &s)
	require.NotNil(t, flags.Lookup("config"))
	require.NoError(t, flags.Parse([]string{"--serve", "udp-echo=:7"}))
	require.Equal(t, "udp-echo=:7", flags.Lookup("serve").Value.String())
}

func TestEveryOptionCanChangeOrSaysWhyNot(t *testing.T) {
	for i := range options {
		require.Equal(t, options[i].adopt == nil, options[i].fixed != "", options[i].name)
	}
}

// TestHelp: every flag says in help what it takes and, where it has one, its
// default.
func TestHelp(t *testing.T) {
	var s Sources
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	Register(flags, &s)
	usage := flags.FlagUsages()
	require.Contains(t, usage, "-i, --interface IFACE")
	require.Contains(t, usage, "--attach auto|native|generic")
	require.Contains(t, usage, "(default auto)")
	require.Contains(t, usage, "(default /run/kitd.sock)")
}

func TestOptionalFile(t *testing.T) {
	_, err := Load(Sources{File: "-/nonexistent/kitd.toml"})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "kitd.toml")
	require.NoError(t, os.WriteFile(path, []byte("mtu = 1"), 0o600))
	_, err = Load(Sources{File: "-" + path})
	require.ErrorContains(t, err, "mtu 1 is not from 68")
}

func TestExampleFile(t *testing.T) {
	c, err := Load(Sources{File: "../../kitd.toml"})
	require.NoError(t, err)
	require.NoError(t, c.RequireInterface())
	text, err := os.ReadFile("../../kitd.toml")
	require.NoError(t, err)
	for i := range options {
		require.Regexp(t, `(?m)^#? ?`+options[i].name+" = ", string(text), "the example shows every key")
	}
}
