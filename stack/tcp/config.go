package tcp

import (
	"fmt"
	"time"
)

// ECNMode says how far explicit congestion notification goes (RFC 3168).
type ECNMode uint8

// The modes.
const (
	ECNOff     ECNMode = iota // never
	ECNPassive                // where the peer asks for it
	ECNOn                     // ask for it too
)

// Config is the numbers of TCP, shared by all connections of a Layer. Make one
// with DefaultConfig and change what is to differ.
type Config struct {
	// InitialRTO is the retransmission time-out before a round trip is known
	// (RFC 6298 section 2.1).
	InitialRTO time.Duration
	// MinRTO is the least that is added to the smoothed round-trip time: G of
	// RFC 6298 section 2.3, larger than the clock's granularity because peers
	// delay their ACKs.
	MinRTO time.Duration
	// MaxRTO bounds the back-off (RFC 6298 section 2.5).
	MaxRTO time.Duration
	// SYNRetries and SYNACKRetries are how often a SYN and a SYN-ACK are
	// repeated before the connection fails (RFC 9293 section 3.8.3).
	SYNRetries, SYNACKRetries int
	// Retries is R2 in retransmissions for data and probes, OrphanRetries the
	// same where the user is gone (RFC 9293 section 3.8.3).
	Retries, OrphanRetries int

	// DelayedACK and MaxDelayedACK bound how long an ACK waits for company; it
	// is at most 500 ms by RFC 9293 section 3.8.6.3 (MUST-40).
	DelayedACK, MaxDelayedACK time.Duration
	// QuickACKs is how many segments are acknowledged at once when a connection
	// begins or data comes after a pause, so that the sender's slow start is
	// not held back.
	QuickACKs int

	// InitialWindow is IW in segments (RFC 6928 section 2).
	InitialWindow int
	// Congestion is "cubic" or "newreno".
	Congestion string
	// HyStart leaves slow start when delays rise (RFC 9406).
	HyStart bool
	// SlowStartAfterIdle lets cwnd decay while nothing is sent (RFC 5681
	// section 4.1, RFC 2861).
	SlowStartAfterIdle bool
	// Pacing spreads a window over its round trip.
	Pacing bool
	// MinBurst is how many segments a burst has at least, the last of which has PSH (see endsBurst).
	MinBurst int

	// SACK, Timestamps and WindowScale say whether the options are offered and
	// accepted (RFC 2018, RFC 7323).
	SACK, Timestamps, WindowScale bool
	ECN                           ECNMode

	// RACK with TLP finds losses by time (RFC 8985). Without it three duplicate
	// ACKs or their SACK equivalent do (RFC 6675).
	RACK, TLP bool
	// FRTO finds out whether a time-out was in vain (RFC 5682).
	FRTO bool

	// KeepAliveIdle, KeepAliveInterval and KeepAliveProbes apply where a
	// connection asked for keep-alives (RFC 9293 section 3.8.4).
	KeepAliveIdle, KeepAliveInterval time.Duration
	KeepAliveProbes                  int
	// TimeWait is 2 MSL (RFC 9293 section 3.4.2).
	TimeWait time.Duration
	// FinWait2 is how long FIN-WAIT-2 lasts where the user is gone.
	FinWait2 time.Duration
	// CorkTimeout is how long TCP_CORK, or a window too small for a good
	// segment, holds data back (RFC 9293 section 3.8.6.2.1: 0.1 to 1 s).
	CorkTimeout time.Duration
	// BlackHole is after how many time-outs in a row full segments are taken for
	// swallowed by the path and made smaller (RFC 4821 section 7.6.2, RFC 2923 section 2.1); 0
	// never.
	BlackHole int
	// MTUInterval is how long a smaller path MTU is believed (RFC 1191 section
	// 6.3).
	MTUInterval time.Duration

	// SendBuffer and ReceiveBuffer are what a connection's streams may hold at
	// first, the Max fields what autotuning may raise them to, all in bytes.
	SendBuffer, SendBufferMax       int
	ReceiveBuffer, ReceiveBufferMax int
	// OutOfOrder is how many separate ranges of bytes may wait for what is
	// missing before them.
	OutOfOrder int

	// MSS is the MSS announced and used at most, whatever the path allows.
	MSS int
	// MinMSS is the least that is believed from the peer or from the path.
	MinMSS int

	// ChallengeACKs is how many challenge ACKs and answers to segments that
	// cannot be accepted a layer sends a second (RFC 5961 section 7), and
	// InvalidInterval how long one connection's are apart at least.
	ChallengeACKs   int
	InvalidInterval time.Duration

	// Random returns 64 random bits. It seeds secrets; nil takes crypto/rand.
	Random func() uint64
}

// DefaultConfig returns the numbers that Linux has, or the RFC where Linux has
// none.
func DefaultConfig() Config {
	return Config{
		InitialRTO: time.Second, MinRTO: 200 * time.Millisecond, MaxRTO: 120 * time.Second,
		SYNRetries: 6, SYNACKRetries: 5, Retries: 15, OrphanRetries: 8,
		DelayedACK: 40 * time.Millisecond, MaxDelayedACK: 200 * time.Millisecond, QuickACKs: 16,
		InitialWindow: 10, Congestion: "cubic", HyStart: true, SlowStartAfterIdle: true, MinBurst: 2,
		SACK: true, Timestamps: true, WindowScale: true, ECN: ECNPassive,
		RACK: true, TLP: true, FRTO: true,
		KeepAliveIdle: 2 * time.Hour, KeepAliveInterval: 75 * time.Second, KeepAliveProbes: 9,
		TimeWait: time.Minute, FinWait2: time.Minute, CorkTimeout: 200 * time.Millisecond,
		BlackHole: 4, MTUInterval: 10 * time.Minute,
		SendBuffer: 64 << 10, SendBufferMax: 4 << 20,
		ReceiveBuffer: 128 << 10, ReceiveBufferMax: 6 << 20,
		OutOfOrder: 1024,
		MSS:        65495, MinMSS: 48,
		ChallengeACKs: 1000, InvalidInterval: 500 * time.Millisecond,
	}
}

// check returns what is wrong with c.
func (c *Config) check() error {
	for _, d := range []struct {
		name     string
		value    time.Duration
		min, max time.Duration
	}{
		{"InitialRTO", c.InitialRTO, time.Millisecond, c.MaxRTO},
		{"MinRTO", c.MinRTO, time.Millisecond, c.MaxRTO},
		{"DelayedACK", c.DelayedACK, 0, c.MaxDelayedACK},
		{"MaxDelayedACK", c.MaxDelayedACK, c.DelayedACK, 500 * time.Millisecond},
		{"KeepAliveIdle", c.KeepAliveIdle, time.Second, 1 << 62},
		{"KeepAliveInterval", c.KeepAliveInterval, time.Second, 1 << 62},
		{"TimeWait", c.TimeWait, 0, 1 << 62},
		{"FinWait2", c.FinWait2, 0, 1 << 62},
		{"CorkTimeout", c.CorkTimeout, time.Millisecond, time.Second},
		{"MTUInterval", c.MTUInterval, time.Second, 1 << 62},
		{"InvalidInterval", c.InvalidInterval, 0, 1 << 62},
	} {
		if d.value < d.min || d.value > d.max {
			return fmt.Errorf("tcp: the configuration's %s is %v, which is not from %v to %v", d.name, d.value, d.min, d.max)
		}
	}
	for _, n := range []struct {
		name            string
		value, min, max int
	}{
		{"SYNRetries", c.SYNRetries, 0, 127},
		{"SYNACKRetries", c.SYNACKRetries, 0, 127},
		{"Retries", c.Retries, 1, 255},
		{"OrphanRetries", c.OrphanRetries, 1, 255},
		{"BlackHole", c.BlackHole, 0, 255},
		{"QuickACKs", c.QuickACKs, 0, 255},
		{"InitialWindow", c.InitialWindow, 1, 1 << 16},
		{"MinBurst", c.MinBurst, 1, 1 << 16},
		{"KeepAliveProbes", c.KeepAliveProbes, 1, 255},
		{"SendBuffer", c.SendBuffer, 1, c.SendBufferMax},
		{"SendBufferMax", c.SendBufferMax, 1, 1 << 30},
		{"ReceiveBuffer", c.ReceiveBuffer, 1, c.ReceiveBufferMax},
		{"ReceiveBufferMax", c.ReceiveBufferMax, 1, 1 << 30},
		{"OutOfOrder", c.OutOfOrder, 1, 1 << 16},
		{"MinMSS", c.MinMSS, 1, c.MSS},
		{"MSS", c.MSS, c.MinMSS, 65495},
		{"ChallengeACKs", c.ChallengeACKs, 1, 1 << 30},
	} {
		if n.value < n.min || n.value > n.max {
			return fmt.Errorf("tcp: the configuration's %s is %d, which is not from %d to %d", n.name, n.value, n.min, n.max)
		}
	}
	if _, ok := algorithmByName(c.Congestion); !ok {
		return fmt.Errorf("tcp: congestion control %q is not known; there are cubic and newreno", c.Congestion)
	}
	return nil
}
