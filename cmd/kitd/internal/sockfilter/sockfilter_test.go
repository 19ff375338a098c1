package sockfilter

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sockets are named by a letter each.
var sockets = []struct {
	name string
	Socket
}{
	{"a", Socket{Proto: "udp", State: "unconnected", Local: netip.MustParseAddrPort("10.0.0.1:7"), Interface: "eth0"}},
	{"b", Socket{Proto: "udp", State: "established", Local: netip.MustParseAddrPort("10.0.0.1:40000"),
		Remote: netip.MustParseAddrPort("192.168.1.7:53"), Interface: "eth0"}},
	{"c", Socket{Proto: "icmp", State: "unconnected", Local: netip.MustParseAddrPort("10.0.1.1:9"), Interface: "eth1"}},
	{"d", Socket{Proto: "udp", State: "unconnected", Local: netip.MustParseAddrPort("127.0.0.1:5000"), Interface: "lo"}},
	{"e", Socket{Proto: "udp", State: "unconnected"}}, // not bound
}

func TestFilters(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "abcde",
		"udp":                          "abde",
		"icmp":                         "c",
		"tcp":                          "",
		"sport = :7":                   "a",
		"sport = 7":                    "a",
		"sport eq :7":                  "a",
		"sport=:7":                     "a",
		"sport != :7":                  "bcde",
		"sport < 10":                   "ac",
		"sport le 9 and udp":           "a",
		"sport >= 5000":                "bd",
		"sport gt 5000":                "b",
		"dport = :domain":              "b",
		"dport = 53":                   "b",
		"dport ne 53":                  "acde",
		"dport < 1024":                 "b",
		"src 10.0.0.1":                 "ab",
		"src = 10.0.0.1":               "ab",
		"src != 10.0.0.1":              "cde",
		"src 10.0.0.0/16":              "abc",
		"src 10.0.0.1:7":               "a",
		"src :7":                       "a",
		"src *:7":                      "a",
		"src 10.0.0.0/8:9":             "c",
		"dst 192.168.0.0/16":           "b",
		"dst 192.168.1.7:53":           "b",
		"dst 192.168.1.7:54":           "",
		"state established":            "b",
		"state unconnected":            "acde",
		"state all":                    "abcde",
		"state CONNECTED":              "b",
		"dev = eth0":                   "ab",
		"dev eth1":                     "c",
		"dev != eth0":                  "cde",
		"not udp":                      "c",
		"! udp":                        "c",
		"!udp":                         "c",
		"not not udp":                  "abde",
		"udp and sport = 7":            "a",
		"udp sport = 7":                "a",
		"udp && sport = 7":             "a",
		"icmp or sport = 7":            "ac",
		"icmp || sport = 7":            "ac",
		"icmp or udp and sport = 7":    "ac",
		"(icmp or udp) and sport = 7":  "a",
		"( sport = :7 or sport = :9 )": "ac",
		"(sport=:7|sport=:9)&dev=eth1": "c",
		"not (sport = 7 or sport = 9)": "bde",
	} {
		f, err := Compile(text)
		require.NoError(t, err, text)
		got := ""
		for i := range sockets {
			if f.Match(&sockets[i].Socket) {
				got += sockets[i].name
			}
		}
		require.Equal(t, want, got, text)
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"port 7":                  `socket filter "port 7": "port" stands where a test is due: src, dst, sport, dport, state, dev, udp, icmp or tcp`,
		"sport 7":                 `"7" stands where a comparison such as = or < is due`,
		"sport = 70000":           `"70000" is no port: a number, :number or a name of /etc/services`,
		"sport = nonesuch":        `"nonesuch" is no port`,
		"sport =":                 `ends too early: the end is no port`,
		"src kit.example":         `"kit.example" is no address such as 10.0.0.1, 10.0.0.0/8, 10.0.0.1:7 or :7`,
		"src 10.0.0.1:x y":        `is no address`,
		"src fe80::1":             `"fe80::1" is no address`,
		"src":                     `the end is no address`,
		"src < 10.0.0.1":          `"<" can't compare here: only = and != can`,
		"state bound":             `"bound" is no state that a socket can have: established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, close-wait, closing, last-ack, time-wait, listening, unconnected or all`,
		"dev":                     `the end stands where an interface is due`,
		"udp )":                   `")" is not expected here`,
		"( udp":                   `the end stands where a closing parenthesis is due`,
		"udp or":                  `the end stands where a test is due`,
		"or udp":                  `"or" stands where a test is due`,
		strings.Repeat("(", 100):  `is nested too deep`,
		strings.Repeat("!", 100):  `is nested too deep`,
		strings.Repeat("u", 5000): `is longer than 4096 bytes`,
	} {
		_, err := Compile(text)
		require.ErrorContains(t, err, want, text)
	}
}

func FuzzCompile(f *testing.F) {
	for _, text := range []string{"sport = :7 or dport < 1024", "not (src 10.0.0.0/8:9)", "dev != eth0 && state established", "(udp|tcp)&!icmp"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := Compile(text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		negated, err := Compile("not (" + text + ")")
		for i := range sockets {
			s := &sockets[i].Socket
			if matched := filter.Match(s); err == nil {
				require.Equal(t, !matched, negated.Match(s), text)
			}
		}
	})
}
