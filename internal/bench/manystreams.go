package bench

import (
	"context"
	"fmt"
	"maps"
	"time"

	"kitnet.dev/kit/internal/bench/child"
)

// tcp-receive-streams and tcp-send-streams are tcp-receive and tcp-send on many connections at once: what receive-sockets is to
// receive.

// The workloads' names.
const (
	tcpReceiveStreams = "tcp-receive-streams"
	tcpSendStreams    = "tcp-send-streams"
)

// streamCounts are the numbers of connections that are measured, for the reason of requestCounts. A smoke run leaves out the last.
var streamCounts = []int{1, 100, comparedStreams}

// comparedStreams is the number with which subjects are compared.
const comparedStreams = 10_000

func streamRateKey(connections int) string { return fmt.Sprintf("bits_%d_per_s", connections) }
func fairnessKey(connections int) string   { return fmt.Sprintf("fairness_%d", connections) }
func idleKey(connections int) string       { return fmt.Sprintf("idle_%d", connections) }
func againKey(connections int) string      { return fmt.Sprintf("resent_%d", connections) }

func manyStreamsWorkload(name string, role Role, how string) workload {
	w := workload{name: name, role: role, title: "TCP " + how, measure: measureManyStreams(role)}
	add := func(key, title string, unit Unit, lower bool) {
		w.columns = append(w.columns, Column{Key: key, Title: title, Unit: unit, LowerIsBetter: lower})
	}
	for i := range streamCounts {
		n := streamCounts[len(streamCounts)-1-i]
		add(streamRateKey(n), fmt.Sprintf("throughput of %d", n), BitsPerSecond, false)
	}
	for i := range streamCounts[1:] {
		n := streamCounts[len(streamCounts)-1-i]
		add(fairnessKey(n), fmt.Sprintf("fairness of %d", n), Share, false)
		add(idleKey(n), fmt.Sprintf("idle of %d", n), Share, true)
		if role == child.StreamsReceive {
			add(againKey(n), fmt.Sprintf("sent again on %d", n), Share, true)
		}
	}
	for _, c := range streamCosts() {
		add(c.Key, c.Title, c.Unit, c.LowerIsBetter)
	}
	return w
}

// manyStreamsNote says what could mislead a reader of the two tables.
const manyStreamsNote = "tcp-receive-streams and tcp-send-streams: all connections are there before the first byte. A write or a " +
	"read has up to 256 KiB, and 16 KiB on 10,000 connections. Fairness is Jain's index of what each connection carried in the " +
	"window as the client's kernel counts it, 100 % where all carried as much; idle is the share of connections that carried " +
	"nothing; busy is with the most connections. On 10,000 each has some 50 kB a second, and all their first windows together, ten " +
	"segments each, are more than any queue on the way holds: what is lost is sent again after 200 ms and more, and the window is " +
	"too short to be fair in. kit's figures of sending on 10,000 are those of seconds in which its send buffers, 64 KiB each, are " +
	"first written to: that is most of its work where new memory is dear, as it is in a virtual machine. gVisor has no " +
	"part: on 10,000 connections its netstack received 0.2 Gbit/s, and sent nothing for a second."

// manyStreamsWarm is how long many connections move bytes before a measurement: longer than a first retransmission takes.
const manyStreamsWarm = time.Second

// measureManyStreams measures with each number of connections, in a process of its own.
func measureManyStreams(role Role) measureFunc {
	return func(ctx context.Context, r *runner, s Subject) (Sample, error) {
		sample := Sample{}
		for _, n := range streamCounts {
			if r.opts.Smoke && n == comparedStreams || !canOpen(n+spareFiles) {
				continue
			}
			if err := r.moveOn(ctx, s, role, n, sample); err != nil {
				return nil, fmt.Errorf("%d connections: %w", n, err)
			}
		}
		return sample, nil
	}
}

// moveOn measures on so many connections, and puts into the sample what it finds.
func (r *runner) moveOn(ctx context.Context, s Subject, role Role, connections int, sample Sample) error {
	restore, err := allowFiles(connections + spareFiles)
	if err != nil {
		return err
	}
	defer restore()
	warm := streamWarm
	if connections > 1 && !r.opts.Smoke {
		warm = manyStreamsWarm
	}
	all, more, err := r.bulk(ctx, s, task{Role: role, Workers: connections}, warm)
	if err != nil {
		return err
	}
	sample[streamRateKey(connections)] = all["bits_per_s"]
	delete(all, "bits_per_s")
	maps.Copy(sample, all)
	if connections == 1 {
		return nil
	}
	sample[fairnessKey(connections)], sample[idleKey(connections)] = more[0], more[1]
	if role == child.StreamsReceive {
		sample[againKey(connections)] = more[2]
	}
	return nil
}
