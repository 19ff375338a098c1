package bench

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// streamReport has kit beside all its rivals with TCP but one.
func streamReport() Report {
	values := func(key string, values ...float64) (samples []Sample) {
		for _, v := range values {
			samples = append(samples, Sample{key: v})
		}
		return samples
	}
	r := Report{
		Version: Version,
		Subjects: []Subject{
			{Name: kitTCP, About: "a listener"}, {Name: kernelTCP, About: "in C"}, {Name: goNetTCP, About: "in Go"},
			{Name: gvisorXDP, About: "one link"}, {Name: gvisorPacket, About: "another", Missing: "it broke"},
		},
		Workloads: []Workload{
			{
				Name: tcpReceive, Title: "bytes", Columns: []Column{{Key: "bits_per_s", Title: "throughput", Unit: BitsPerSecond}},
				Results: []Result{
					{Subject: kitTCP, Samples: values("bits_per_s", 9e9, 4e9, 8e9)},
					{Subject: kernelTCP, Samples: values("bits_per_s", 4e9, 4e9, 9e9)},
					{Subject: goNetTCP, Samples: values("bits_per_s", 6e9, 5e9, 3e9)},
					{Subject: gvisorXDP, Samples: values("bits_per_s", 2e9, 2e9, 950e6)},
				},
			},
			{
				Name: tcpRoundtrip, Title: "times", Columns: []Column{
					{Key: "p50_ns", Title: "p50", Unit: Nanoseconds, LowerIsBetter: true},
				},
				Results: []Result{
					{Subject: kitTCP, Samples: values("p50_ns", 30e3)},
					{Subject: kernelTCP, Samples: values("p50_ns", 60e3)},
					{Subject: goNetTCP, Samples: values("p50_ns", 50e3)},
				},
			},
		},
	}
	for i := range r.Workloads {
		r.Workloads[i].summarize()
	}
	r.Goals = r.goals()
	return r
}

func TestStreamReportTable(t *testing.T) {
	r := streamReport()
	var b bytes.Buffer
	require.NoError(t, r.WriteTable(&b))
	golden(t, "streams.txt", b.Bytes())
}

// The best of several is chosen by its median in the workload, not anew in each repetition, where chance would choose.
func TestRatiosToTheBestOfSome(t *testing.T) {
	r := streamReport()
	bulk := r.Workload(tcpReceive)
	require.Equal(t, goNetTCP, bulk.best([]string{kernelTCP, goNetTCP}).Subject)
	require.Equal(t, 1.5, bulk.Result(kitTCP).Ratios[bestKernel], "the median of 1.5, 0.8 and 2.67")
	require.Equal(t, 1.0, bulk.Result(goNetTCP).Ratios[bestKernel])
	require.Equal(t, 4.5, bulk.Result(kitTCP).Ratios[bestGVisor])
	trips := r.Workload(tcpRoundtrip)
	require.Equal(t, goNetTCP, trips.best([]string{kernelTCP, goNetTCP}).Subject, "of a time, less is better")
	require.NotContains(t, trips.Result(kitTCP).Ratios, bestGVisor, "which was not measured")
	require.Nil(t, trips.best([]string{gvisorXDP, gvisorPacket}))
}

func TestStreamGoals(t *testing.T) {
	r := streamReport()
	var lines []string
	for _, g := range r.Goals {
		lines = append(lines, g.String())
	}
	require.Equal(t, []string{
		"TCP receive, ratio to best gVisor: 4.50, wanted at least 4.00: met",
		"TCP receive, ratio to best kernel: 1.50, wanted at least 1.00: met",
		"TCP round trip, p50, ratio to best kernel: 0.60, wanted at most 1.00: met",
	}, lines)
	require.NoError(t, r.Check())
	r.Workload(tcpReceive).Result(kitTCP).Ratios[bestKernel] = 0.01
	require.ErrorContains(t, r.Check(), "tcp-receive: kit TCP is 0.01 times best kernel, which can't be")
	for i := range r.Workloads {
		r.Workloads[i].Results = r.Workloads[i].Results[1:]
	}
	require.Empty(t, r.goals(), "without kit")
}

func TestBusy(t *testing.T) {
	first := reading{Received: 100, Sent: 10, At: time.Second, User: time.Second, System: time.Second}
	last := reading{Received: 150, Sent: 11, At: 3 * time.Second, User: 1500 * time.Millisecond, System: 2 * time.Second}
	did := last.since(first)
	require.Equal(t, reading{Received: 50, Sent: 1, At: 2 * time.Second, User: 500 * time.Millisecond, System: time.Second}, did)
	require.Equal(t, 0.75, did.busy())
}

// serveLoopback serves a stream role on the loopback interface, and returns a client's task.
func serveLoopback(t *testing.T, role Role) (client task, c *counters) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	c = new(counters)
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() { failed <- child.ServeStream(ln, task{Role: role}, c, func() { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		require.ErrorIs(t, <-failed, net.ErrClosed)
	})
	return task{Role: role, Address: ln.Addr().(*net.TCPAddr).AddrPort(), Workers: 8}, c
}

// answerLoopback accepts connections on the loopback interface for a client with the role, and answers as f does.
func answerLoopback(t *testing.T, role Role, f func(net.Conn)) (client task) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	over := make(chan struct{})
	var conns []net.Conn // or the garbage collector would close them
	go func() {
		defer close(over)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
			f(conn)
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		<-over
		for _, conn := range conns {
			_ = conn.Close() // of which some are closed
		}
	})
	return task{Role: role, Address: ln.Addr().(*net.TCPAddr).AddrPort(), Workers: 8}
}

func newAsker(t *testing.T, client task, length int) *asker {
	t.Helper()
	fd, err := streamSocket(client)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	return &asker{fd: fd, stream: true, out: make([]byte, length), in: make([]byte, length)}
}

func TestAskStream(t *testing.T) {
	client, c := serveLoopback(t, child.StreamEcho)
	for _, length := range []int{1, 64, 1024} {
		a := newAsker(t, client, length)
		for range 300 {
			took, ok, err := a.ask()
			require.NoError(t, err)
			require.True(t, ok)
			require.Positive(t, took)
		}
	}
	const all = 300 * (1 + 64 + 1024)
	require.EqualValues(t, all, c.Received.Load())
	require.Eventually(t, func() bool { return c.Sent.Load() == all }, 10*time.Second, time.Millisecond, "counted once it is sent")
}

func TestAskStreamWantsItsAnswer(t *testing.T) {
	for want, answer := range map[string]func(net.Conn){
		"the answer to 01 is ff": func(conn net.Conn) { _, _ = conn.Write([]byte{0xff}) },
		"closed the connection":  func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)); _ = conn.Close() },
		"no answer came for 1s":  func(net.Conn) {},
	} {
		a := newAsker(t, answerLoopback(t, child.StreamEcho, answer), 1)
		_, ok, err := a.ask()
		require.False(t, ok)
		require.ErrorContains(t, err, want)
	}
}

func TestMoveBytes(t *testing.T) {
	for _, role := range []Role{child.StreamReceive, child.StreamSend} {
		client, c := serveLoopback(t, role)
		moved, ready := new(counters), make(chan struct{})
		go func() {
			// Until the test's end: the client, as any subject, returns only on failure.
			_ = moveBytes(client, moved, func() { close(ready) })
		}()
		<-ready
		from, to := &moved.Sent, &c.Received
		if role == child.StreamSend {
			from, to = &c.Sent, &moved.Received
		}
		require.Eventually(t, func() bool { return to.Load() > 4*child.Bulk }, 10*time.Second, time.Millisecond)
		require.Positive(t, from.Load())
	}
}

func TestMoveBytesFails(t *testing.T) {
	gone := answerLoopback(t, child.StreamSend, func(conn net.Conn) { _ = conn.Close() })
	require.ErrorContains(t, moveBytes(gone, new(counters), func() {}), "the subject closed the connection")
	silent := answerLoopback(t, child.StreamSend, func(net.Conn) {})
	require.ErrorContains(t, moveBytes(silent, new(counters), func() {}), "no byte came for 1s")
	nobody := task{Role: child.StreamSend, Address: netip.MustParseAddrPort("127.0.0.1:1")}
	require.ErrorContains(t, moveBytes(nobody, new(counters), func() {}), "connect the client to 127.0.0.1:1: connection refused")
}

func TestMoveBytesOnManyConnections(t *testing.T) {
	for _, role := range bulkStreams {
		client, c := serveLoopback(t, role)
		moved, ready := new(counters), make(chan struct{})
		go func() { _ = moveOnMany(client, moved, func() { close(ready) }) }()
		<-ready
		to := &c.Received
		if role == child.StreamsSend {
			to = &moved.Received
		}
		require.Eventually(t, func() bool { return to.Load() > 64*child.Bulk }, 10*time.Second, time.Millisecond)
		moved.Update()
		require.Len(t, moved.More, 3)
		fairness, idle, resent := moved.More[0], moved.More[1], moved.More[2]
		require.True(t, fairness >= 0.125 && fairness <= 1, "%v", fairness)
		require.Less(t, idle, 1.0)
		require.True(t, resent >= 0 && resent < 1, "%v", resent)
	}
}

func TestMoveBytesOnManyConnectionsFails(t *testing.T) {
	gone := answerLoopback(t, child.StreamsSend, func(conn net.Conn) { _ = conn.(*net.TCPConn).CloseWrite() })
	require.ErrorContains(t, moveOnMany(gone, new(counters), func() {}), "the subject closed a connection that should stay")
	reset := answerLoopback(t, child.StreamsReceive, func(conn net.Conn) { _ = conn.Close() })
	require.ErrorContains(t, moveOnMany(reset, new(counters), func() {}), "a connection that should stay fails")
	silent := answerLoopback(t, child.StreamsSend, func(net.Conn) {})
	require.ErrorContains(t, moveOnMany(silent, new(counters), func() {}), "no byte moved for 3s")
	nobody := task{Role: child.StreamsSend, Address: netip.MustParseAddrPort("127.0.0.1:1"), Workers: 8}
	require.ErrorContains(t, moveOnMany(nobody, new(counters), func() {}), "connect the client: connection refused")
}

func TestUnevenness(t *testing.T) {
	for _, c := range []struct {
		carried        []uint64
		fairness, idle float64
	}{
		{[]uint64{5, 5, 5, 5}, 1, 0},
		{[]uint64{8, 0, 0, 0}, 0.25, 0.75},
		{[]uint64{1, 3}, 0.8, 0},
		{[]uint64{0, 0}, 0, 1},
	} {
		fairness, idle := unevenness(c.carried)
		require.Equal(t, []float64{c.fairness, c.idle}, []float64{fairness, idle}, "%v", c.carried)
	}
}

func newConnector(t *testing.T, client task) *connector {
	t.Helper()
	c, err := startConnector(client)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.close()) })
	return c
}

func TestConnections(t *testing.T) {
	client, served := serveLoopback(t, child.StreamConnect)
	c := newConnector(t, client)
	require.NoError(t, c.run(time.Now().Add(100*time.Millisecond)))
	require.NotEmpty(t, c.times)
	require.Zero(t, c.failed)
	require.GreaterOrEqual(t, served.Sent.Load(), uint64(len(c.times)), "each had its answer")
	require.LessOrEqual(t, served.Received.Load(), uint64(len(c.times)+client.Workers), "and one question")
}

// A connection counts only if all of it went well.
func TestConnectionsThatFail(t *testing.T) {
	reset := func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0); _ = conn.Close() }
	for name, answer := range map[string]func(net.Conn){
		"reset at once":  reset,
		"closed at once": func(conn net.Conn) { _ = conn.Close() },
		"a wrong answer": func(conn net.Conn) { _, _ = conn.Write([]byte{0xff}); _ = conn.Close() },
		"more than the answer": func(conn net.Conn) {
			b := make([]byte, 1)
			if _, err := conn.Read(b); err == nil {
				_, _ = conn.Write(append(b, b...))
			}
			_ = conn.Close()
		},
		"reset after the answer": func(conn net.Conn) {
			b := make([]byte, 1)
			if _, err := conn.Read(b); err == nil {
				_, _ = conn.Write(b)
				_, _ = conn.Read(b)
			}
			reset(conn)
		},
	} {
		c := newConnector(t, answerLoopback(t, child.StreamConnect, answer))
		for end := time.Now().Add(10 * time.Second); c.failed == 0 && time.Now().Before(end); {
			require.NoError(t, c.run(time.Now().Add(50*time.Millisecond)), name)
		}
		require.Empty(t, c.times, name)
		require.Positive(t, c.failed, name)
	}
	c := newConnector(t, answerLoopback(t, child.StreamConnect, func(net.Conn) {}))
	require.ErrorContains(t, c.run(time.Now().Add(time.Hour)), "no connection got on for 1s")
}

// All connections are there before one is asked again, and each has one request outstanding.
func TestRequests(t *testing.T) {
	client, served := serveLoopback(t, child.StreamRequest)
	client.Workers = 3*openAtOnce + 1
	c, err := openConnector(client)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.close()) })
	require.Equal(t, client.Workers, c.waiting)
	require.Len(t, c.workers, client.Workers)
	require.NoError(t, c.run(time.Now().Add(100*time.Millisecond)))
	require.Greater(t, len(c.times), client.Workers)
	require.Zero(t, c.failed)
	answers := uint64(client.Workers + len(c.times))
	require.Eventually(t, func() bool { return served.Sent.Load() >= answers }, 10*time.Second, time.Millisecond,
		"each had its answer, which is counted once it is sent")
	require.LessOrEqual(t, served.Received.Load(), answers+uint64(client.Workers), "and one more question")
	for i, w := range c.workers {
		require.Equal(t, asking, w.stage)
		require.NotEqual(t, byte(i), w.question, "it was asked more than once")
	}
	resent, err := c.resent()
	require.NoError(t, err)
	require.Zero(t, resent, "the loopback loses nothing")
}

// A connection that should stay must.
func TestRequestsThatFail(t *testing.T) {
	after := func(f func(net.Conn, byte)) func(net.Conn) {
		return func(conn net.Conn) {
			b := make([]byte, 1)
			if _, err := conn.Read(b); err == nil {
				f(conn, b[0])
			}
		}
	}
	for want, answer := range map[string]func(net.Conn){
		"the subject closed a connection that should stay": after(func(conn net.Conn, q byte) {
			_, _ = conn.Write([]byte{q})
			_, _ = conn.Read(make([]byte, 1)) // or the close would be a reset
			_ = conn.Close()
		}),
		"a connection that should stay fails: connection reset by peer": after(func(conn net.Conn, _ byte) {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}),
		"the answer to 00 is 55":   after(func(conn net.Conn, _ byte) { _, _ = conn.Write([]byte{0x55}) }),
		"the answer to 00 is 0000": after(func(conn net.Conn, q byte) { _, _ = conn.Write([]byte{q, q}) }),
	} {
		client := answerLoopback(t, child.StreamRequest, answer)
		client.Workers = 1
		c, err := openConnector(client)
		if err == nil {
			err = c.run(time.Now().Add(10 * time.Second))
			require.NoError(t, c.close())
		}
		require.ErrorContains(t, err, want)
	}
	_, err := openConnector(task{Role: child.StreamRequest, Workers: 1, Address: netip.MustParseAddrPort("127.0.0.1:1")})
	require.ErrorContains(t, err, "connection refused")
}

// A subject that lets its client down says nothing itself; the client does.
func TestSubjectThatDoesNotServeTCP(t *testing.T) {
	o := quickOptions(tcpRoundtrip)
	o.Subjects, o.GVisor = []string{gvisorXDP}, "/bin/cat"
	report, err := Run(context.Background(), o, &bytes.Buffer{})
	require.NoError(t, err)
	require.ErrorContains(t, report.Err(), "tcp-roundtrip of gVisor AF_XDP: bench: the subject has ended")
}
