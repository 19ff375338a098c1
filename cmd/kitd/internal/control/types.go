// Package control is how kitd's command line asks a running kitd: HTTP over a
// unix socket, JSON documents that only ever grow, and a capture as a stream.
//
//	GET /v1/status
//	GET /v1/stats
//	GET /v1/sockets?filter=FILTER      ss's language, see package sockfilter
//	POST /v1/connect?to=HOST:PORT&fallback=1
//	GET /v1/neighbors
//	GET /v1/routes
//	GET /v1/queues
//	GET /v1/capture?format=pcapng|text&filter=FILTER&count=N&drops=1
//
// The capture's filter is in tcpdump's language, see package pcapfilter. Its
// trailers Kit-Captured and Kit-Lost count packets. Every other answer is one
// JSON document; an answer that is no 200 is an Error. So curl is a client too:
//
//	curl --unix-socket /run/kitd.sock http://kitd/v1/status
package control

import (
	"context"
	"io"
	"time"
)

// Version is the "version" of every document: it changes when a field changes
// its meaning or goes, not when one is added.
const Version = 1

// Error is the document of a request that failed.
type Error struct {
	Version int    `json:"version"`
	Message string `json:"error"` // one sentence
}

// Choice is something that was asked for and what it came to.
type Choice struct {
	Asked string `json:"asked"`
	InUse string `json:"in_use"`
}

// Status says how a kitd is.
type Status struct {
	Version       int       `json:"version"`
	Kitd          string    `json:"kitd"` // the module's version
	PID           int       `json:"pid"`
	Interface     string    `json:"interface"`
	HardwareAddr  string    `json:"hardware_addr"`
	MTU           int       `json:"mtu"`  // bytes of an IP packet
	Mode          string    `json:"mode"` // shared, owned
	Addresses     []string  `json:"addresses"`
	Gateway       string    `json:"gateway,omitempty"`
	Attach        Choice    `json:"attach"`      // auto, native, generic
	Copy          Choice    `json:"copy"`        // auto, zerocopy, copy
	TxChecksum    Choice    `json:"tx_checksum"` // auto, on, off; in use: on, off, mixed
	Wait          string    `json:"wait"`        // adaptive, busy, interrupt
	Queues        []int     `json:"queues"`
	Services      []Service `json:"services"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Rates         Rates     `json:"rates"`
	Capabilities  []string  `json:"capabilities"` // those still held
	NoNewPrivs    bool      `json:"no_new_privs"`
	// Degraded says, a sentence each, what is not as it was asked for; empty is
	// good.
	Degraded []string `json:"degraded"`
	// Notes say, a sentence each, what is as it should be and may still surprise,
	// such as what kit does not follow of the kernel's routing.
	Notes []string `json:"notes"`
}

// Rates are what went through in the last whole second.
type Rates struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	Drops     uint64 `json:"drops"`
}

// Service is a built-in service and where it answers.
type Service struct {
	Name      string   `json:"name"`
	Asked     string   `json:"asked"`     // NAME=ADDR
	Addresses []string `json:"addresses"` // with ports
}

// Stats holds every counter.
type Stats struct {
	Version  int       `json:"version"`
	Counters []Counter `json:"counters"`
}

// Counter is a number that counts from the start of kitd, or with Gauge one
// that goes up and down.
type Counter struct {
	Group string `json:"group"` // xdp, socket, engine, tcp, kernel, drop, drop-tx
	Name  string `json:"name"`
	// Interface and Queue say whose number it is; without them it is the whole
	// kitd's.
	Interface string `json:"interface,omitempty"`
	Queue     *int   `json:"queue,omitempty"`
	Value     uint64 `json:"value"`
	Gauge     bool   `json:"gauge,omitempty"`
	Help      string `json:"help"` // one sentence
}

// Sockets lists the sockets of the stack.
type Sockets struct {
	Version int      `json:"version"`
	Sockets []Socket `json:"sockets"`
}

// Socket is one of them.
type Socket struct {
	ID         uint64 `json:"id"`
	Proto      string `json:"proto"` // udp, icmp, tcp
	State      string `json:"state"` // as in ss: established (has a peer), unconnected, listening, syn-sent, time-wait …
	Local      string `json:"local,omitempty"`
	Remote     string `json:"remote,omitempty"`
	Interface  string `json:"interface,omitempty"`
	Handler    bool   `json:"handler"`     // answered on the engine
	ReadQueue  int    `json:"read_queue"`  // bytes that wait for the reader; of listening the connections that wait for Accept
	WriteQueue int    `json:"write_queue"` // bytes that wait for the card, of tcp those not acknowledged; of listening the most that may wait
	Received   uint64 `json:"received"`    // datagrams or segments
	RxBytes    uint64 `json:"rx_bytes"`
	Sent       uint64 `json:"sent"`
	TxBytes    uint64 `json:"tx_bytes"`
	Dropped    uint64 `json:"dropped"`
	// Accelerated: its packets go by the stack. Reason says why they do not: the socket is the kernel's, or its card is gone.
	Accelerated bool   `json:"accelerated"`
	Reason      string `json:"reason,omitempty"`
	TCP         *TCP   `json:"tcp,omitempty"` // of a connection
}

// TCP is what the state machine knows of a connection, much as ss -i has it.
type TCP struct {
	Congestion      string `json:"congestion"`       // cubic, newreno
	CongestionState string `json:"congestion_state"` // open, disorder, cwr, recovery, loss
	SRTTMicros      int64  `json:"srtt_us"`
	RTTVarMicros    int64  `json:"rttvar_us"`
	MinRTTMicros    int64  `json:"min_rtt_us"`
	RTOMicros       int64  `json:"rto_us"`
	MSS             int    `json:"mss"`
	PMTU            int    `json:"pmtu"`
	Cwnd            uint32 `json:"cwnd"`               // segments
	Ssthresh        uint32 `json:"ssthresh,omitempty"` // segments; none before the first loss
	InFlight        uint32 `json:"in_flight"`          // segments
	Retransmitted   uint32 `json:"retransmitted"`      // segments since the beginning
	Lost            uint32 `json:"lost"`               // segments taken for lost since the beginning
	Timeouts        uint8  `json:"timeouts"`           // retransmission time-outs in a row
	Delivered       uint64 `json:"delivered"`          // bytes that the peer acknowledged
	Received        uint64 `json:"received"`           // bytes that came in order
	Unsent          int    `json:"unsent"`             // bytes written and never sent
	PacingRate      uint64 `json:"pacing_rate"`        // bytes a second; 0: not paced
	SendWindow      uint32 `json:"send_window"`
	ReceiveWindow   uint32 `json:"receive_window"`
	SACK            bool   `json:"sack"`
	Timestamps      bool   `json:"timestamps"`
	ECN             bool   `json:"ecn"`
	SendScale       uint8  `json:"send_scale"`
	ReceiveScale    uint8  `json:"receive_scale"`
}

// Neighbors lists the hosts that the card reaches directly.
type Neighbors struct {
	Version   int        `json:"version"`
	Neighbors []Neighbor `json:"neighbors"`
}

// Neighbor is one of them.
type Neighbor struct {
	Interface    string `json:"interface"`
	Addr         string `json:"addr"`
	HardwareAddr string `json:"hardware_addr,omitempty"`
	State        string `json:"state"`
	Queued       int    `json:"queued"` // packets that wait for it
	// AgeSeconds is the time since it was last confirmed.
	AgeSeconds float64 `json:"age_seconds"`
}

// Routes lists the routes that the stack uses.
type Routes struct {
	Version int     `json:"version"`
	Routes  []Route `json:"routes"`
	// Notes say, a sentence each, by what else the kernel routes.
	Notes []string `json:"notes"`
}

// Route is one of them.
type Route struct {
	Interface string `json:"interface"`
	Dst       string `json:"dst"`
	Gateway   string `json:"gateway,omitempty"`
	Source    string `json:"source,omitempty"`
	Metric    int    `json:"metric"`
	MTU       int    `json:"mtu,omitempty"`
	Kind      string `json:"kind"`
}

// Queues lists the queues of the card.
type Queues struct {
	Version int     `json:"version"`
	Queues  []Queue `json:"queues"`
}

// Queue is one of them, with its engine.
type Queue struct {
	Interface string `json:"interface"`
	Queue     int    `json:"queue"`
	Running   bool   `json:"running"`
	Sleeping  bool   `json:"sleeping"`
	Steps     uint64 `json:"steps"`
	Sockets   int    `json:"sockets"`
	RxFrames  uint64 `json:"rx_frames"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxFrames  uint64 `json:"tx_frames"`
	TxBytes   uint64 `json:"tx_bytes"`
	Delivered uint64 `json:"delivered"`
	Answered  uint64 `json:"answered"`
	Drops     uint64 `json:"drops"`
}

// Formats of a capture.
const (
	FormatPcapng = "pcapng"
	FormatText   = "text" // a line a packet
)

// CaptureRequest says what to capture.
type CaptureRequest struct {
	Format string
	Filter string
	Count  uint64 // 0: until the asker goes
	Drops  bool   // only what was dropped
}

// CaptureResult says what a capture came to.
type CaptureResult struct {
	Captured uint64 // packets written
	Lost     uint64 // packets that were wanted but came faster than they were written
}

// Source is the running kitd that a Server asks. Its methods are called from
// any goroutine.
type Source interface {
	Status() Status
	Stats() Stats
	// Sockets returns an error only for a bad filter.
	Sockets(filter string) (Sockets, error)
	Neighbors() Neighbors
	Routes() Routes
	Queues() Queues
	// Capture checks the request and returns what runs the capture. The error is
	// about the request.
	Capture(r CaptureRequest) (CaptureRun, error)
	// Connect connects the stack to HOST:PORT.
	// With fallback the kernel connects where the stack does not reach.
	Connect(ctx context.Context, address string, fallback bool) (Stream, error)
}

// CaptureRun writes packets to w until there are as many as were asked for, ctx
// ends or w fails. It calls started, once, when no frame can escape it any more.
type CaptureRun func(ctx context.Context, w io.Writer, started func()) CaptureResult
