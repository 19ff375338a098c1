package host

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/tcp"
)

// Config of a Host.
type Config struct {
	Local   netip.Prefix // the host's address
	Gateway netip.Addr   // on Local's network: the way to all others
	MTU     int          // bytes
	// Proc is the folder with the settings of net.ipv4, one a file, that scripts change. They are read when the first socket
	// is made or the first packet comes. Empty: there are none.
	Proc string
	// Sysctls have precedence over the files of Proc.
	Sysctls map[string]string
	// Logf takes what is wrong with the stack and no call can say.
	Logf func(format string, args ...any)
}

// DefaultConfig has the addresses that packetdrill's scripts have where they say nothing.
func DefaultConfig() Config {
	return Config{
		Local: netip.MustParsePrefix("192.168.0.1/16"), Gateway: netip.MustParseAddr("192.168.255.254"), MTU: 1500,
		Proc: "/proc/sys/net/ipv4", Sysctls: make(map[string]string),
		Logf: func(f string, args ...any) { fmt.Fprintf(os.Stderr, f+"\n", args...) },
	}
}

// ParseFlags reads what packetdrill hands over as --so_flags, words KEY=VALUE: local=ADDRESS/BITS, gateway=ADDRESS, mtu=BYTES,
// proc=FOLDER, and any tcp_… setting of net.ipv4, such as tcp_ecn=1.
func ParseFlags(flags string) (Config, error) {
	c := DefaultConfig()
	for _, word := range strings.Fields(flags) {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return c, fmt.Errorf("flag %q is not KEY=VALUE", word)
		}
		var err error
		switch {
		case key == "local":
			c.Local, err = netip.ParsePrefix(value)
		case key == "gateway":
			c.Gateway, err = netip.ParseAddr(value)
		case key == "mtu":
			c.MTU, err = strconv.Atoi(value)
		case key == "proc":
			c.Proc = value
		case strings.HasPrefix(key, "tcp_"):
			c.Sysctls[key] = value
		default:
			err = fmt.Errorf("there is no such flag: it is local, gateway, mtu, proc or a tcp_ setting")
		}
		if err != nil {
			return c, fmt.Errorf("flag %s: %w", word, err)
		}
	}
	return c, nil
}

// sysctl returns a setting's numbers, nil where there is none.
func (c *Config) sysctl(name string) []string {
	if v, ok := c.Sysctls[name]; ok {
		return strings.Split(v, ",")
	}
	if c.Proc == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(c.Proc, name))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// settings are the numbers of TCP that Documentation/networking/ip-sysctl.rst of Linux and tcp.Config have in common.
var settings = []struct {
	name string
	set  func(c *tcp.Config, v []int)
}{
	{"tcp_syn_retries", func(c *tcp.Config, v []int) { c.SYNRetries = v[0] }},
	{"tcp_synack_retries", func(c *tcp.Config, v []int) { c.SYNACKRetries = v[0] }},
	{"tcp_retries2", func(c *tcp.Config, v []int) { c.Retries = v[0] }},
	{"tcp_orphan_retries", func(c *tcp.Config, v []int) {
		if v[0] > 0 {
			c.OrphanRetries = v[0]
		}
	}},
	{"tcp_rmem", func(c *tcp.Config, v []int) { c.ReceiveBuffer, c.ReceiveBufferMax = buffers(v) }},
	{"tcp_wmem", func(c *tcp.Config, v []int) { c.SendBuffer, c.SendBufferMax = buffers(v) }},
	{"tcp_timestamps", func(c *tcp.Config, v []int) { c.Timestamps = v[0] != 0 }},
	{"tcp_sack", func(c *tcp.Config, v []int) { c.SACK = v[0] != 0 }},
	{"tcp_window_scaling", func(c *tcp.Config, v []int) { c.WindowScale = v[0] != 0 }},
	{"tcp_ecn", func(c *tcp.Config, v []int) {
		if v[0] <= 2 { // above is accurate ECN, RFC 9768
			c.ECN = []tcp.ECNMode{tcp.ECNOff, tcp.ECNOn, tcp.ECNPassive}[v[0]]
		}
	}},
	{"tcp_frto", func(c *tcp.Config, v []int) { c.FRTO = v[0] != 0 }},
	{"tcp_early_retrans", func(c *tcp.Config, v []int) { c.TLP = v[0] == 3 || v[0] == 4 }},
	{"tcp_recovery", func(c *tcp.Config, v []int) { c.RACK = v[0]&1 != 0 }},
	{"tcp_slow_start_after_idle", func(c *tcp.Config, v []int) { c.SlowStartAfterIdle = v[0] != 0 }},
	{"tcp_min_tso_segs", func(c *tcp.Config, v []int) { c.MinBurst = v[0] }},
	{"tcp_keepalive_time", func(c *tcp.Config, v []int) { c.KeepAliveIdle = seconds(v[0]) }},
	{"tcp_keepalive_intvl", func(c *tcp.Config, v []int) { c.KeepAliveInterval = seconds(v[0]) }},
	{"tcp_keepalive_probes", func(c *tcp.Config, v []int) { c.KeepAliveProbes = v[0] }},
	{"tcp_fin_timeout", func(c *tcp.Config, v []int) { c.FinWait2 = seconds(v[0]) }},
	{"tcp_challenge_ack_limit", func(c *tcp.Config, v []int) { c.ChallengeACKs = min(v[0], 1<<30) }},
	{"tcp_invalid_ratelimit", func(c *tcp.Config, v []int) { c.InvalidInterval = milliseconds(v[0]) }},
	{"tcp_rto_min_us", func(c *tcp.Config, v []int) { c.MinRTO = time.Duration(v[0]) * time.Microsecond }},
	{"tcp_rto_max_ms", func(c *tcp.Config, v []int) { c.MaxRTO = milliseconds(v[0]) }},
}

func seconds(n int) time.Duration      { return time.Duration(n) * time.Second }
func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// buffers are the sizes at first and at most, of the three numbers least, default and most.
func buffers(v []int) (first, most int) {
	if len(v) != 3 {
		return v[0], v[0]
	}
	return v[1], max(v[1], v[2])
}

// tcpConfig is the stack's default with what the settings say.
func (c *Config) tcpConfig() (tcp.Config, error) {
	out := stack.DefaultTCP()
	for _, s := range settings {
		var numbers []int
		for _, w := range c.sysctl(s.name) {
			n, err := strconv.Atoi(w)
			if err != nil {
				return out, fmt.Errorf("net.ipv4.%s is %q, which is not a number", s.name, w)
			}
			numbers = append(numbers, n)
		}
		if len(numbers) > 0 {
			s.set(&out, numbers)
		}
	}
	// A name that is not the stack's leaves its default: many kernels let no namespace but the first choose cubic.
	if v := c.sysctl("tcp_congestion_control"); len(v) > 0 && v[0] == "reno" {
		out.Congestion = "newreno"
	} else if len(v) > 0 && slices.Contains(tcp.CongestionNames(), v[0]) {
		out.Congestion = v[0]
	}
	return out, out.Check()
}
