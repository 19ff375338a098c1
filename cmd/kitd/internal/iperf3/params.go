package iperf3

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
)

// Limits of iperf3 (iperf.h).
const (
	maxStreams     = 128
	maxTime        = 86400 // seconds
	maxOmit        = 600   // seconds
	maxBlock       = 1 << 20
	maxUDPBlock    = 65507
	minUDPBlock    = 16
	maxWindow      = 512 << 20
	maxMSS         = 32<<10 - 1
	maxBurst       = 1000
	defaultBlock   = 128 << 10
	defaultUDP     = 1460
	defaultPacing  = time.Millisecond
	longestPacing  = time.Second
	fastest        = 1e13 // bits a second; a higher rate is no limit
	longestTextual = 64   // bytes of a client's version or an algorithm's name
)

// params is what the client asks for.
type params struct {
	udp           bool
	reverse       bool          // the server sends
	bidirectional bool          // both do
	parallel      int           // streams in each direction
	omit          time.Duration // from the start, not counted
	duration      time.Duration // after omit; 0 where the client counts bytes or blocks
	bytes         int64         // of all streams together, 0: no limit
	blocks        int64         // likewise
	length        int           // of a block: a write, or a datagram, bytes
	rate          int64         // of each stream, bits a second; 0: as fast as can be
	burst         int           // blocks that are sent together when there is a rate
	pacing        time.Duration // how finely a rate is kept
	window        int           // socket buffers, bytes; 0: as they are
	mss           int           // 0: as it is
	tos           int
	noDelay       bool
	congestion    string // "": as it is
	wide          bool   // sequence numbers of 64 bits
	serverOutput  bool   // wants the server's report
	version       string
}

// number is a JSON number or nothing: what has another type counts as absent, as it does for iperf3.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	if i, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		*n = number(i)
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return nil
	case f >= math.MaxInt64: // which as a float is 2⁶³
		*n = math.MaxInt64
	case f <= math.MinInt64:
		*n = math.MinInt64
	default:
		*n = number(f)
	}
	return nil
}

// flag is set by true and by a number that is not 0; iperf3 writes both.
type flag bool

func (f *flag) UnmarshalJSON(b []byte) error {
	var n number
	_ = n.UnmarshalJSON(b)
	*f = string(b) == "true" || n != 0
	return nil
}

// text is a JSON string or nothing.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// wireParams has the names that iperf3 gives its parameters. Those that are missing here concern the client alone, or are
// nothing that the far end could see: zerocopy, fqrate, flowlabel (IPv6), dont_fragment, repeating_payload, title,
// extra_data, server_affinity, skip_rx_copy, gso, gro, authtoken.
type wireParams struct {
	TCP           flag   `json:"tcp"`
	UDP           flag   `json:"udp"`
	SCTP          flag   `json:"sctp"`
	Omit          number `json:"omit"`
	Time          number `json:"time"`
	Num           number `json:"num"`
	BlockCount    number `json:"blockcount"`
	MSS           number `json:"MSS"`
	NoDelay       flag   `json:"nodelay"`
	Parallel      number `json:"parallel"`
	Reverse       flag   `json:"reverse"`
	Bidirectional flag   `json:"bidirectional"`
	Window        number `json:"window"`
	Len           number `json:"len"`
	Bandwidth     number `json:"bandwidth"`
	PacingTimer   number `json:"pacing_timer"` // µs
	Burst         number `json:"burst"`
	TOS           number `json:"TOS"`
	Congestion    text   `json:"congestion"`
	ServerOutput  flag   `json:"get_server_output"`
	Counters64    flag   `json:"udp_counters_64bit"`
	Version       text   `json:"client_version"`
}

// parseParams reads and checks a client's parameters. Errors are faults.
func parseParams(b []byte) (*params, error) {
	w := wireParams{Parallel: 1}
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, faultf(codeReceiveParams, "its parameters are not what JSON or iperf3 has: %w", err)
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	p := &params{
		udp:           bool(w.UDP),
		reverse:       bool(w.Reverse),
		bidirectional: bool(w.Bidirectional),
		parallel:      int(w.Parallel),
		omit:          time.Duration(w.Omit) * time.Second,
		duration:      time.Duration(w.Time) * time.Second,
		bytes:         int64(w.Num),
		blocks:        int64(w.BlockCount),
		length:        int(w.Len),
		rate:          int64(w.Bandwidth),
		burst:         max(int(w.Burst), 1),
		pacing:        time.Duration(min(w.PacingTimer, number(longestPacing/time.Microsecond))) * time.Microsecond,
		window:        int(w.Window),
		mss:           int(w.MSS),
		tos:           int(w.TOS),
		noDelay:       bool(w.NoDelay),
		congestion:    string(w.Congestion),
		wide:          bool(w.Counters64),
		serverOutput:  bool(w.ServerOutput),
		version:       string(w.Version[:min(len(w.Version), longestTextual)]),
	}
	if p.length == 0 && p.udp {
		p.length = defaultUDP
	}
	if p.length == 0 {
		p.length = defaultBlock
	}
	if p.pacing == 0 {
		p.pacing = defaultPacing
	}
	if p.rate > fastest {
		p.rate = 0
	}
	return p, nil
}

// check holds what the client sent against iperf3's limits.
func (w *wireParams) check() error {
	udp := bool(w.UDP)
	longest := number(maxBlock)
	blockCode := codeBlockSize
	if udp {
		longest, blockCode = maxUDPBlock, codeUDPBlockSize
	}
	for _, c := range []struct {
		name      string
		n, lo, hi number
		code      code
	}{
		{"omit", w.Omit, 0, maxOmit, codeOmit},
		{"time", w.Time, 0, maxTime, codeDuration},
		{"num", w.Num, 0, math.MaxInt64, codeReceiveParams},
		{"blockcount", w.BlockCount, 0, math.MaxInt64, codeReceiveParams},
		{"MSS", w.MSS, 0, maxMSS, codeMSS},
		{"parallel", w.Parallel, 1, maxStreams, codeStreams},
		{"window", w.Window, 0, maxWindow, codeBufferSize},
		{"len", w.Len, 0, longest, blockCode},
		{"bandwidth", w.Bandwidth, 0, math.MaxInt64, codeReceiveParams},
		{"pacing_timer", w.PacingTimer, 0, math.MaxInt64, codeReceiveParams},
		{"burst", w.Burst, 0, maxBurst, codeBurst},
		{"TOS", w.TOS, 0, 255, codeTOS},
	} {
		if c.n < c.lo || c.n > c.hi {
			return faultf(c.code, "its parameter %s is %d, which is not within %d to %d", c.name, c.n, c.lo, c.hi)
		}
	}
	switch {
	case bool(w.TCP) == udp || bool(w.SCTP):
		return faultf(codeProtocol, "it asks for another protocol than TCP or UDP, or for two")
	case bool(w.Reverse) && bool(w.Bidirectional):
		return faultf(codeReverseBidir, "it asks for --reverse and --bidir together")
	case udp && w.Len != 0 && w.Len < minUDPBlock:
		return faultf(codeUDPBlockSize, "its parameter len is %d, too short for the %d bytes that head a datagram", w.Len, minUDPBlock)
	case len(w.Congestion) > longestTextual:
		return faultf(codeReceiveParams, "its parameter congestion has %d bytes", len(w.Congestion))
	}
	return nil
}

// sends reports whether the server sends.
func (p *params) sends() bool { return p.reverse || p.bidirectional }

// streams is how many the client opens.
func (p *params) streams() int {
	if p.bidirectional {
		return 2 * p.parallel
	}
	return p.parallel
}

// direction says in a word who sends, for the log.
func (p *params) direction() string {
	switch {
	case p.bidirectional:
		return "both"
	case p.reverse:
		return "send"
	}
	return "receive"
}

func (p *params) protocol() string {
	if p.udp {
		return "udp"
	}
	return "tcp"
}
