package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// option is a flag of kitd run, and a key of its file.
type option struct {
	name, short string
	argument    string // what help calls the value
	usage       string
	repeat      bool
	fallback    []string
	set         func(c *Config, text string) error
	// adopt copies the value, for options that a running kitd can change. For the
	// others fixed says why it can't.
	adopt func(to, from *Config)
	fixed string
}

const cardIsOpen = "the card was opened with the old one"

var options = []option{
	{name: "interface", short: "i", argument: "IFACE", usage: "network card to hold",
		set: func(c *Config, text string) error { c.Interface = text; return nil }, fixed: cardIsOpen},
	{name: "address", argument: "CIDR", repeat: true,
		usage: "address that kit owns, such as 10.0.0.5/24; repeatable; without any kit shares the card's kernel addresses",
		set:   setAddress, fixed: cardIsOpen},
	{name: "gateway", argument: "IP", usage: "next hop of the default route for owned addresses", set: setGateway, fixed: cardIsOpen},
	{name: "serve", argument: "NAME=ADDR", repeat: true, adopt: func(to, from *Config) { to.Services = from.Services },
		usage: "built-in service at an address, such as udp-echo=:7 (every address of the card) or udp-discard=10.0.0.5:9; repeatable; " +
			"services: " + strings.Join(ServiceNames(), " "),
		set: setService},
	{name: "attach", argument: "auto|native|generic", fallback: []string{"auto"},
		usage: "how XDP is attached; auto falls back from native to generic and says so",
		set:   choice(func(c *Config) *string { return &c.Attach }, "auto", "native", "generic"), fixed: cardIsOpen},
	{name: "copy", argument: "auto|zerocopy|copy", fallback: []string{"auto"},
		usage: "how frames reach user space; auto tries zerocopy first",
		set:   choice(func(c *Config) *string { return &c.Copy }, "auto", "zerocopy", "copy"), fixed: cardIsOpen},
	{name: "tx-checksum", argument: "auto|on|off", fallback: []string{"auto"},
		usage: "leave UDP and TCP checksums to the card; auto where its driver computes them with zerocopy, on in copy mode too",
		set:   choice(func(c *Config) *string { return &c.TxChecksum }, "auto", "on", "off"), fixed: cardIsOpen},
	{name: "queues", argument: "all|0,1,...", fallback: []string{"all"}, usage: "queues of the card to hold", set: setQueues, fixed: cardIsOpen},
	{name: "wait", argument: "adaptive|busy|interrupt", fallback: []string{"adaptive"},
		usage: "how an engine waits for frames: poll a while then sleep, always poll, sleep at once",
		set:   choice(func(c *Config) *string { return &c.Wait }, "adaptive", "busy", "interrupt"), fixed: "the engines run with the old one"},
	{name: "spin", argument: "DURATION", usage: "how long an adaptive engine polls before it sleeps, four times as long while that saves sleeps (default 50µs)", set: setSpin, fixed: "the engines run with the old one"},
	{name: "control", argument: "PATH", fallback: []string{DefaultControl}, usage: "control socket",
		set: func(c *Config, text string) error { c.Control = text; return nil }, fixed: "it is open"},
	{name: "metrics", argument: "ADDR", usage: "serve /metrics, /healthz and /readyz over HTTP, such as 127.0.0.1:9100; off without it",
		set: setMetrics, fixed: "it is open"},
	{name: "mtu", argument: "BYTES", usage: "longest IP packet (default: the card's)",
		set: number(func(c *Config) *int { return &c.MTU }), fixed: cardIsOpen},
	{name: "frame-size", argument: "2048|4096", usage: "bytes of a frame buffer (default: what fits the MTU)",
		set: number(func(c *Config) *int { return &c.FrameSize }), fixed: cardIsOpen},
	{name: "frames", argument: "N", usage: "frame buffers a queue (default: twice the ring size)",
		set: number(func(c *Config) *int { return &c.Frames }), fixed: cardIsOpen},
	{name: "ring-size", argument: "N", usage: "descriptors of the receive and of the transmit ring, a power of two (default 4096)",
		set: number(func(c *Config) *int { return &c.RingSize }), fixed: cardIsOpen},
	{name: "log", argument: "text|json", fallback: []string{"text"}, usage: "form of the log on stderr",
		set: choice(func(c *Config) *string { return &c.Log }, "text", "json"), fixed: "the log has been begun in the old form"},
	{name: "log-level", argument: "debug|info|warn|error", fallback: []string{"info"}, usage: "least level that is logged",
		set: setLogLevel, adopt: func(to, from *Config) { to.LogLevel = from.LogLevel }},
}

func find(name string) *option {
	i := slices.IndexFunc(options, func(o option) bool { return o.name == name })
	if i < 0 {
		return nil
	}
	return &options[i]
}

// Choices are the words that an option takes, nil where it takes others.
func Choices(name string) []string {
	o := find(name)
	if o == nil || !strings.Contains(o.argument, "|") || strings.Contains(o.argument, "...") {
		return nil
	}
	return strings.Split(o.argument, "|")
}

// Register adds the options to a set of flags. What is given there is stored in
// s.Flags, and is checked at once as far as one value can be. Register adds
// --config too, which fills s.File.
func Register(flags *pflag.FlagSet, s *Sources) {
	flags.SortFlags = false // the table's order says what belongs together
	s.Flags = map[string][]string{}
	for i := range options {
		o := &options[i]
		flags.VarP(&flag{option: o, given: s.Flags}, o.name, o.short, o.usage)
	}
	flags.StringVar(&s.File, "config", "", "TOML `FILE` with these names as keys; flags win; -FILE: it may be missing")
}

// flag makes an option a pflag.Value.
type flag struct {
	option *option
	given  map[string][]string
}

// Set takes one value.
func (f *flag) Set(text string) error {
	if err := f.option.set(new(Config), text); err != nil {
		return err
	}
	if !f.option.repeat {
		f.given[f.option.name] = nil
	}
	f.given[f.option.name] = append(f.given[f.option.name], text)
	return nil
}

// String returns the value in force, which help shows as the default.
func (f *flag) String() string {
	if f.option == nil { // pflag asks a zero value for its default
		return ""
	}
	if given := f.given[f.option.name]; given != nil {
		return strings.Join(given, ",")
	}
	return strings.Join(f.option.fallback, ",")
}

// Type is the word for the value in help.
func (f *flag) Type() string { return f.option.argument }

func choice(field func(*Config) *string, words ...string) func(*Config, string) error {
	return func(c *Config, text string) error {
		if !slices.Contains(words, text) {
			return fmt.Errorf("is none of %s", strings.Join(words, ", "))
		}
		*field(c) = text
		return nil
	}
}

func number(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, text string) error {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || n == 0 {
			return errors.New("is not a positive number")
		}
		*field(c) = int(n)
		return nil
	}
}

func setAddress(c *Config, text string) error {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || !prefix.Addr().Is4() {
		return errors.New("is not an IPv4 address with a prefix length, such as 10.0.0.5/24")
	}
	c.Addresses = append(c.Addresses, prefix)
	return nil
}

func setGateway(c *Config, text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return errors.New("is not an IPv4 address")
	}
	c.Gateway = addr
	return nil
}

func setQueues(c *Config, text string) error {
	if text == "all" {
		c.Queues = nil
		return nil
	}
	var queues []int
	for _, part := range strings.Split(text, ",") {
		queue, err := strconv.ParseUint(strings.TrimSpace(part), 10, 16)
		if err != nil {
			return errors.New("is neither all nor a list of queue numbers such as 0,1")
		}
		if slices.Contains(queues, int(queue)) {
			return fmt.Errorf("names queue %d twice", queue)
		}
		queues = append(queues, int(queue))
	}
	c.Queues = queues
	return nil
}

func setSpin(c *Config, text string) error {
	spin, err := time.ParseDuration(text)
	if err != nil || spin <= 0 || spin > 10*time.Millisecond {
		return errors.New("is not a time from 1ns to 10ms, such as 50us")
	}
	c.Spin = spin
	return nil
}

func setMetrics(c *Config, text string) error {
	host, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err == nil && host != "" {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		return errors.New("is not an address with a port, such as 127.0.0.1:9100")
	}
	c.Metrics = text
	return nil
}

func setLogLevel(c *Config, text string) error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, text) {
		return errors.New("is none of debug, info, warn, error")
	}
	return c.LogLevel.UnmarshalText([]byte(text))
}
