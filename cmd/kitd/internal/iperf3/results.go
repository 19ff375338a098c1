package iperf3

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// results is what the two ends tell each other when a test has ended.
type results struct {
	CPUTotal  float64 `json:"cpu_util_total"` // percent of one core
	CPUUser   float64 `json:"cpu_util_user"`
	CPUSystem float64 `json:"cpu_util_system"`
	// HasRetransmits is 1 where the sender counts them, 0 where it does not, -1 from who only receives.
	HasRetransmits int            `json:"sender_has_retransmits"`
	CongestionUsed string         `json:"congestion_used,omitempty"`
	ServerOutput   string         `json:"server_output_text,omitempty"`
	Streams        []streamResult `json:"streams"`
}

// streamResult is one stream as one end sees it. Bytes are without the omitted time; errors and packets are with it, and
// clients from 3.13 on take omitted_errors and omitted_packets off.
type streamResult struct {
	ID             int     `json:"id"`
	Bytes          int64   `json:"bytes"`
	Retransmits    int64   `json:"retransmits"` // -1: not known
	Jitter         float64 `json:"jitter"`      // seconds
	Errors         int64   `json:"errors"`      // datagrams lost
	OmittedErrors  int64   `json:"omitted_errors"`
	Packets        int64   `json:"packets"` // sent; or the highest sequence number that came
	OmittedPackets int64   `json:"omitted_packets"`
	StartTime      float64 `json:"start_time"` // seconds
	EndTime        float64 `json:"end_time"`
}

// clientStream is what the server wants of the client's results: how much there is to come.
type clientStream struct {
	ID      number `json:"id"`
	Bytes   number `json:"bytes"`
	Packets number `json:"packets"`
}

// parseResults reads the client's results, by stream identifier.
func parseResults(b []byte) (map[int]clientStream, error) {
	var r struct {
		Streams []clientStream `json:"streams"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, faultf(codeReceiveResults, "its results are not what JSON or iperf3 has: %w", err)
	}
	byID := map[int]clientStream{}
	for _, s := range r.Streams {
		if s.ID < 1 || s.ID > 2*maxStreams+1 || s.Bytes < 0 || s.Packets < 0 {
			return nil, faultf(codeReceiveResults, "its results have a stream %d with %d bytes in %d packets", s.ID, s.Bytes, s.Packets)
		}
		byID[int(s.ID)] = s
	}
	return byID, nil
}

// result is the stream's, for a test whose counted part took that long.
func (s *stream) result(end counters, took time.Duration) streamResult {
	counted := end.since(s.base)
	r := streamResult{
		ID: s.id, Bytes: counted.bytes, Retransmits: -1,
		Errors: end.lost, OmittedErrors: s.base.lost,
		Packets: end.packets, OmittedPackets: s.base.packets,
		Jitter: time.Duration(s.jitter.Load()).Seconds(), EndTime: took.Seconds(),
	}
	if s.knowsRetransmits() {
		r.Retransmits = counted.retransmits
	}
	return r
}

// scaled is a number with three digits and a unit, such as "1.25 M"; steps is 1000 or 1024.
func scaled(n, step float64) string {
	const units = " KMGTPE"
	u := 0
	for n >= step && u < len(units)-1 {
		n /= step
		u++
	}
	digits := 2
	if n >= 9.995 {
		digits--
	}
	if n >= 99.95 {
		digits--
	}
	if u == 0 {
		return fmt.Sprintf("%.*f ", digits, n)
	}
	return fmt.Sprintf("%.*f %c", digits, n, units[u])
}

// bitRate is bits a second; 0 where no time has passed.
func bitRate(bytes int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return 8 * float64(bytes) / took.Seconds()
}

// percent is a share in percent; 0 of nothing.
func percent(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return math.Min(100*float64(part)/float64(whole), 100)
}
