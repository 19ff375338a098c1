// Package config holds what kitd can be told to do: by flags, by a TOML file
// whose keys are the flags' long names, and by defaults, in that order of
// precedence. All of it is checked together before anything is touched.
package config

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultControl is where kitd listens for its command line.
const DefaultControl = "/run/kitd.sock"

// Config is what kitd was told. Zero numbers stand for the loader's and the
// stack's defaults.
type Config struct {
	Interface string
	Addresses []netip.Prefix // none: shared mode
	Gateway   netip.Addr
	Services  []Service

	Attach     string // auto, native, generic
	Copy       string // auto, zerocopy, copy
	TxChecksum string // auto, on, off
	Queues     []int  // nil: all
	Wait       string // adaptive, busy, interrupt
	Spin       time.Duration

	Control string
	Metrics string // host:port; empty: off

	MTU       int // bytes of an IP packet
	FrameSize int // bytes
	Frames    int // a queue
	RingSize  int // descriptors of the receive and of the transmit ring

	Log      string // text, json
	LogLevel slog.Level

	// texts are the values as they were given, for Changes.
	texts map[string][]string
}

// Owned reports whether the addresses are kit's alone.
func (c *Config) Owned() bool { return len(c.Addresses) > 0 }

// Sources are the places that values come from.
type Sources struct {
	Flags map[string][]string // given on the command line, by long name
	File  string              // path of a TOML file; empty: none; with a - in front it may be missing
}

// Load reads the file, puts the flags above it and the defaults below it, and
// checks the whole. Each problem is a sentence of its own; errors.Join holds
// them together.
func Load(s Sources) (*Config, error) {
	file, err := readFile(s.File)
	if err != nil {
		return nil, err
	}
	c := &Config{texts: map[string][]string{}}
	var problems []error
	for i := range options {
		o := &options[i]
		texts, from := s.Flags[o.name], "--"+o.name
		if texts == nil {
			texts, from = file[o.name], strings.TrimPrefix(s.File, "-")+": "+o.name
		}
		if texts == nil {
			texts, from = o.fallback, "default of "+o.name
		}
		for _, text := range texts {
			if err := o.set(c, text); err != nil {
				problems = append(problems, &ValueError{From: from, Value: text, Err: err})
			}
		}
		c.texts[o.name] = texts
	}
	if len(problems) == 0 {
		problems = c.check()
	}
	return c, errors.Join(problems...)
}

// ValueError is a value that its option can't take.
type ValueError struct {
	From  string // --attach, or "kitd.toml: attach"
	Value string
	Err   error
}

// Error is one sentence.
func (e *ValueError) Error() string {
	return e.From + " " + strconv.Quote(e.Value) + " " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *ValueError) Unwrap() error { return e.Err }

// Adopt returns what is in force when a kitd that runs with c is told next:
// next's values for what can change, c's for the rest.
func (c *Config) Adopt(next *Config) *Config {
	now := *c
	now.texts = maps.Clone(c.texts)
	for i := range options {
		if o := &options[i]; o.adopt != nil {
			o.adopt(&now, next)
			now.texts[o.name] = next.texts[o.name]
		}
	}
	return &now
}

// Fixed is an option that changed and can't while kitd runs.
type Fixed struct {
	Name string
	Why  string // half a sentence
}

// Changes names the options in which two configurations differ: those that a
// running kitd can take over, and those that need a restart.
func Changes(old, new *Config) (live []string, restart []Fixed) {
	for i := range options {
		o := &options[i]
		if slices.Equal(old.texts[o.name], new.texts[o.name]) {
			continue
		}
		if o.adopt != nil {
			live = append(live, o.name)
		} else {
			restart = append(restart, Fixed{o.name, o.fixed})
		}
	}
	return live, restart
}
