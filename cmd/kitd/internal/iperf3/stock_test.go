package iperf3

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// stock is what the client says with -J, as far as it is looked at.
type stock struct {
	Error string
	Start struct {
		TestStart struct {
			Protocol string
			Streams  int `json:"num_streams"`
		} `json:"test_start"`
	}
	End struct {
		Streams []struct {
			Sender   stockStream
			Receiver stockStream
			UDP      stockStream
		}
		SumSent          stockStream `json:"sum_sent"`
		SumReceived      stockStream `json:"sum_received"`
		SumSentBidir     stockStream `json:"sum_sent_bidir_reverse"`
		SumReceivedBidir stockStream `json:"sum_received_bidir_reverse"`
		Sum              stockStream
		CPU              struct {
			Total float64 `json:"remote_total"`
		} `json:"cpu_utilization_percent"`
		SenderCongestion   string `json:"sender_tcp_congestion"`
		ReceiverCongestion string `json:"receiver_tcp_congestion"`
	}
	ServerOutput string `json:"server_output_text"`
}

type stockStream struct {
	Bytes       int64
	Seconds     float64
	Retransmits *int64
	Packets     int64
	Lost        int64   `json:"lost_packets"`
	Jitter      float64 `json:"jitter_ms"`
	OutOfOrder  int64   `json:"out_of_order"`
}

// iperf3 runs the stock client against the server and returns what it says.
func iperf3(t *testing.T, s *serverUnderTest, args ...string) stock {
	t.Helper()
	out, err := iperf3Text(t, s, append([]string{"-J"}, args...)...)
	var said stock
	_, object, _ := bytes.Cut(out, []byte("{")) // behind its warnings
	require.NoError(t, json.Unmarshal(append([]byte("{"), object...), &said), "%s", out)
	require.Empty(t, said.Error)
	require.NoError(t, err)
	return said
}

// stockTest begins a test that needs the stock client and runs in parallel. Without it the test is skipped, or fails where
// KIT_NO_SKIP=1 is set.
func stockTest(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("iperf3"); err != nil {
		if os.Getenv("KIT_NO_SKIP") == "1" {
			t.Fatal("needs iperf3, and KIT_NO_SKIP=1 allows no skip")
		}
		t.Skip("needs iperf3: apt-get install iperf3")
	}
	t.Parallel()
}

// iperf3Command is the stock client, ready to run against the server.
func iperf3Command(ctx context.Context, s *serverUnderTest, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "iperf3",
		append([]string{"-c", s.at.Addr().String(), "-p", strconv.Itoa(int(s.at.Port()))}, args...)...)
}

func iperf3Text(t *testing.T, s *serverUnderTest, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	cmd := iperf3Command(ctx, s, args...)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	require.NoError(t, ctx.Err(), "iperf3 %v hangs: %s", args, &both)
	return both.Bytes(), err
}

// endedTest is the server's own account of its one test.
func (s *serverUnderTest) endedTest(t *testing.T) (sent, received int64) {
	t.Helper()
	r := s.log.await(t, "iperf3 test ended")
	require.Empty(t, s.log.find("iperf3 test failed"))
	require.Contains(t, r.attrs, "sent", "the test did not end by the rules: %v", r.attrs)
	return r.attrs["sent"].Int64(), r.attrs["received"].Int64()
}

// arrived checks that all that the client says it sent has come. From 3.16 on, it may not know that the last block of each
// stream is gone.
func arrived(t *testing.T, sent, received, atMost int64) {
	t.Helper()
	require.GreaterOrEqual(t, received, sent)
	require.LessOrEqual(t, received, sent+atMost)
}

const tcpBlock = 128 << 10

// atRate checks that what went in some time went at a rate, bits a second, and no faster. A busy machine makes it slower.
func atRate(t *testing.T, want float64, did stockStream, why ...any) {
	t.Helper()
	require.Positive(t, did.Bytes, why...)
	require.Less(t, 8*float64(did.Bytes)/did.Seconds, want*1.3, why...)
}

func TestStockTCP(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{}, nil)
	said := iperf3(t, s, "-t", "1")
	sent, received := s.endedTest(t)
	require.Zero(t, sent)
	require.Positive(t, received)
	require.Equal(t, received, said.End.SumReceived.Bytes, "the client prints what the server counted")
	arrived(t, said.End.SumSent.Bytes, received, tcpBlock)
	require.GreaterOrEqual(t, said.End.SumReceived.Seconds, 0.9)
	require.Positive(t, said.End.CPU.Total)
}

func TestStockTCPReverse(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{}, nil)
	said := iperf3(t, s, "-t", "1", "-R")
	sent, received := s.endedTest(t)
	require.Zero(t, received)
	require.Equal(t, sent, said.End.SumSent.Bytes, "the client prints what the server counted")
	require.Positive(t, said.End.SumReceived.Bytes)
	require.LessOrEqual(t, said.End.SumReceived.Bytes, sent)
	require.Nil(t, said.End.SumSent.Retransmits, "they are not known of this connection")
}

func TestStockTCPParallel(t *testing.T) {
	stockTest(t)
	for name, direction := range map[string][]string{"receive": nil, "send": {"-R"}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &loopback{}, nil)
			said := iperf3(t, s, append([]string{"-t", "1", "-P", "8"}, direction...)...)
			sent, received := s.endedTest(t)
			require.Len(t, said.End.Streams, 8)
			for i, st := range said.End.Streams {
				require.Positive(t, st.Receiver.Bytes, "stream %d", i)
				if name == "receive" {
					arrived(t, st.Sender.Bytes, st.Receiver.Bytes, tcpBlock)
				} else {
					require.LessOrEqual(t, st.Receiver.Bytes, st.Sender.Bytes, "stream %d", i)
				}
			}
			if name == "receive" {
				require.Equal(t, received, said.End.SumReceived.Bytes)
			} else {
				require.Equal(t, sent, said.End.SumSent.Bytes)
			}
		})
	}
}

func TestStockTCPBothWays(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{}, nil)
	said := iperf3(t, s, "-t", "1", "--bidir", "-P", "2")
	sent, received := s.endedTest(t)
	require.Equal(t, received, said.End.SumReceived.Bytes)
	arrived(t, said.End.SumSent.Bytes, received, 2*tcpBlock)
	require.Equal(t, sent, said.End.SumSentBidir.Bytes)
	require.Positive(t, said.End.SumReceivedBidir.Bytes)
	require.LessOrEqual(t, said.End.SumReceivedBidir.Bytes, sent)
}

// The limits in bytes and blocks end a test exactly, in both directions.
func TestStockTCPLimits(t *testing.T) {
	stockTest(t)
	for _, c := range []struct {
		name string
		args []string
		want int64
	}{
		{"bytes", []string{"-n", "1M", "-l", "64K"}, 1 << 20},
		{"blocks", []string{"-k", "10", "-l", "1000"}, 10000},
		{"bytes to the client", []string{"-n", "1M", "-R", "-l", "64K"}, 1 << 20},
		{"bytes to the client, not a multiple", []string{"-n", "1000", "-R", "-l", "300"}, 1200},
		{"bytes to the client, eight streams", []string{"-n", "10M", "-R", "-P", "8"}, 10 << 20},
		{"large blocks", []string{"-k", "3", "-l", "1M"}, 3 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, &loopback{}, nil)
			said := iperf3(t, s, c.args...)
			sent, received := s.endedTest(t)
			require.Equal(t, c.want, sent+received)
			require.Equal(t, c.want, said.End.SumSent.Bytes)
			require.Equal(t, c.want, said.End.SumReceived.Bytes)
		})
	}
}

// Blocks to the client: it counts reads, of which there may be more than blocks.
func TestStockTCPBlocksToClient(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{}, nil)
	said := iperf3(t, s, "-k", "10", "-l", "1000", "-R")
	sent, _ := s.endedTest(t)
	require.Equal(t, sent, said.End.SumSent.Bytes)
	require.LessOrEqual(t, sent, int64(10000))
}

func TestStockTCPRate(t *testing.T) {
	stockTest(t)
	for _, args := range [][]string{{"-b", "8M"}, {"-b", "8M", "-R"}, {"-b", "8M/4", "-R", "-l", "16K"}} {
		s := serve(t, &loopback{}, nil)
		said := iperf3(t, s, append(args, "-t", "2")...)
		atRate(t, 8e6, said.End.SumReceived, "%v", args)
		s.stop()
	}
}

// With -O, the two ends still agree.
func TestStockTCPOmit(t *testing.T) {
	stockTest(t)
	for _, args := range [][]string{{}, {"-R"}} {
		s := serve(t, &loopback{}, nil)
		said := iperf3(t, s, append(args, "-t", "1", "-O", "1", "-b", "8M", "-l", "10K")...)
		sent, received := s.endedTest(t)
		require.Positive(t, sent+received, "%v", args)
		if len(args) > 0 {
			require.Equal(t, sent, said.End.SumSent.Bytes)
		} else {
			require.Equal(t, received, said.End.SumReceived.Bytes)
		}
		s.stop()
	}
}

// What has come, and what is lost, make up what was sent.
func TestStockUDP(t *testing.T) {
	stockTest(t)
	for _, c := range []struct {
		length int64
		args   []string
	}{
		{1400, []string{"-t", "1", "-b", "0"}},
		{1400, []string{"-t", "1", "-b", "10M"}},
		{1400, []string{"-t", "1", "-b", "2M", "-P", "8"}},
		{1400, []string{"-t", "1", "-b", "10M", "--udp-counters-64bit"}},
		{1000, []string{"-n", "200K", "-b", "5M"}},
		{1400, []string{"-k", "50", "-b", "5M"}},
		{60000, []string{"-t", "1", "-b", "5M"}},
		{16, []string{"-t", "1", "-b", "100K"}},
	} {
		s := serve(t, &loopback{}, nil)
		said := iperf3(t, s, append([]string{"-u", "-l", strconv.FormatInt(c.length, 10)}, c.args...)...)
		_, received := s.endedTest(t)
		require.Positive(t, received, "%v", c.args)
		require.Equal(t, received, said.End.SumReceived.Bytes, "%v: the client prints what the server counted", c.args)
		require.Equal(t, received, (said.End.SumReceived.Packets-said.End.SumReceived.Lost)*c.length, "%v: %+v", c.args, said.End)
		require.LessOrEqual(t, received, said.End.SumSent.Bytes+8*c.length, "%v", c.args)
		require.Positive(t, said.End.Sum.Jitter, "%v", c.args)
		require.Less(t, said.End.Sum.Jitter, 500.0, "%v", c.args)
		s.stop()
	}
}

func TestStockUDPReverse(t *testing.T) {
	stockTest(t)
	for _, args := range [][]string{{"-b", "0"}, {"-b", "2M"}, {"-b", "2M", "-P", "8"}, {"-b", "2M", "--udp-counters-64bit"}} {
		s := serve(t, &loopback{}, nil)
		said := iperf3(t, s, append([]string{"-u", "-R", "-l", "1400", "-t", "1"}, args...)...)
		sent, _ := s.endedTest(t)
		var packets, bytes int64
		for _, st := range said.End.Streams {
			packets += st.UDP.Packets
			bytes += st.UDP.Bytes
			require.Positive(t, st.UDP.Packets)
			require.Zero(t, st.UDP.OutOfOrder)
		}
		require.Equal(t, sent, bytes, "%v: the client prints what the server counted", args)
		got := said.End.SumReceived
		require.Equal(t, got.Bytes, (got.Packets-got.Lost)*1400, "%v: %+v", args, said.End)
		if args[1] != "0" {
			atRate(t, 2e6*float64(len(said.End.Streams)), said.End.SumSent, "%v", args)
		}
		s.stop()
	}
}

// A limit in bytes ends a UDP test to the client even where datagrams are lost: the server goes on until it is told.
func TestStockUDPReverseLimits(t *testing.T) {
	stockTest(t)
	for _, limit := range [][]string{{"-n", "5M"}, {"-k", "2000"}} {
		s := serve(t, &loopback{}, nil)
		said := iperf3(t, s, append([]string{"-u", "-R", "-b", "0", "-l", "8K"}, limit...)...)
		sent, _ := s.endedTest(t)
		require.GreaterOrEqual(t, sent, int64(5e6))
		require.Equal(t, sent, said.End.Streams[0].UDP.Bytes)
		s.stop()
	}
}

func TestStockUDPBothWays(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{}, nil)
	said := iperf3(t, s, "-u", "--bidir", "-b", "2M", "-P", "2", "-t", "1", "-l", "1400")
	sent, received := s.endedTest(t)
	require.Len(t, said.End.Streams, 4)
	require.Positive(t, sent)
	require.Positive(t, received)
	for i, st := range said.End.Streams {
		atRate(t, 2e6, st.UDP, "stream %d", i)
	}
}

func TestStockUDPOmit(t *testing.T) {
	stockTest(t)
	for _, args := range [][]string{{}, {"-R"}} {
		s := serve(t, &loopback{}, nil)
		said := iperf3(t, s, append(args, "-u", "-b", "8M", "-t", "1", "-O", "1", "-l", "1000")...)
		sent, received := s.endedTest(t)
		require.Positive(t, sent+received, "%v", args)
		if len(args) > 0 {
			require.Equal(t, sent, said.End.SumSent.Bytes)
		} else {
			require.Equal(t, received, said.End.SumReceived.Bytes)
		}
		s.stop()
	}
}

// Batches carry the same test.
func TestStockUDPBatches(t *testing.T) {
	stockTest(t)
	for _, args := range [][]string{{}, {"-R"}} {
		var k *kernelBatch
		l := &loopback{udp: func(c *net.UDPConn) net.PacketConn { k = &kernelBatch{UDPConn: c}; return k }}
		s := serve(t, l, nil)
		said := iperf3(t, s, append(args, "-u", "-b", "400M", "-t", "1", "-l", "1400", "-S", "0x10")...)
		s.endedTest(t)
		atRate(t, 400e6, said.End.SumReceived, "%v", args)
		k.mu.Lock()
		if len(args) > 0 {
			require.Greater(t, k.largestWrite, 1)
		} else {
			require.Greater(t, k.largestRead, 1)
		}
		k.mu.Unlock()
		s.stop()
	}
}

// A packet connection that can do nothing but ReadFrom and WriteTo will do.
func TestStockUDPPlain(t *testing.T) {
	stockTest(t)
	type bare struct{ net.PacketConn }
	l := &loopback{udp: func(c *net.UDPConn) net.PacketConn { return bare{c} }}
	s := serve(t, l, nil)
	said := iperf3(t, s, "-u", "--bidir", "-b", "2M", "-t", "1", "-l", "1400")
	sent, received := s.endedTest(t)
	require.Positive(t, sent)
	require.Positive(t, received)
	for _, st := range said.End.Streams {
		atRate(t, 2e6, st.UDP)
	}
}

// What a connection can do is asked of it: congestion control, segment size, delay, and TCP's own figures.
func TestStockTCPSettings(t *testing.T) {
	stockTest(t)
	conns := make(chan kernelConn, 8)
	l := &loopback{tcp: func(c *net.TCPConn) net.Conn { k := kernelConn{c}; conns <- k; return k }}
	s := serve(t, l, nil)
	run := make(chan stock)
	go func() {
		defer close(run)
		run <- iperf3(t, s, "-t", "1", "-R", "-C", "reno", "-M", "1000", "-N", "-w", "200K", "-S", "0x10", "--get-server-output")
	}()
	s.log.await(t, "iperf3 test begins")
	<-conns // the control connection
	data := <-conns
	require.Equal(t, 1, data.option(t, unix.IPPROTO_TCP, unix.TCP_NODELAY))
	require.Equal(t, 0x10, data.option(t, unix.IPPROTO_IP, unix.IP_TOS))
	require.LessOrEqual(t, data.option(t, unix.IPPROTO_TCP, unix.TCP_MAXSEG), 1000)
	require.Equal(t, 400<<10, data.option(t, unix.SOL_SOCKET, unix.SO_SNDBUF), "the kernel doubles what is asked for")
	require.Equal(t, 400<<10, data.option(t, unix.SOL_SOCKET, unix.SO_RCVBUF))
	said := <-run
	s.endedTest(t)
	require.Equal(t, "reno", said.End.SenderCongestion)
	require.NotNil(t, said.End.SumSent.Retransmits, "they are known of this connection")
	require.Contains(t, said.ServerOutput, "Retr")
	require.Contains(t, said.ServerOutput, "rtt")
}

// An algorithm that the server has not is no reason to end the test; one that cannot be set is.
func TestStockTCPCongestionFails(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{tcp: func(c *net.TCPConn) net.Conn { return broken{c, "SetCongestion", errNoSuchAlgorithm} }}, nil)
	said := iperf3(t, s, "-n", "1K", "-C", "cubic")
	s.endedTest(t)
	require.Len(t, s.log.find("iperf3: no such congestion control here, the test goes on without"), 1)
	require.Equal(t, "reno", said.End.ReceiverCongestion)

	s = serve(t, &loopback{tcp: func(c *net.TCPConn) net.Conn { return broken{c, "SetCongestion", syscall.EPERM} }}, nil)
	out, err := iperf3Text(t, s, "-n", "1K", "-C", "cubic")
	require.Error(t, err)
	require.Contains(t, string(out), "unable to set TCP_CONGESTION")
	s.log.await(t, "iperf3 test failed")
}

// The client prints its own sentence for the server's number, and errno's.
func TestStockUDPPortTaken(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{packetErr: os.NewSyscallError("bind", syscall.EADDRINUSE)}, nil)
	out, err := iperf3Text(t, s, "-u")
	require.Error(t, err)
	require.Contains(t, string(out), "unable to start stream listener")
	require.Contains(t, string(out), "Address already in use")
	r := s.log.await(t, "iperf3 test failed")
	require.ErrorIs(t, r.attrs["error"].Any().(error), syscall.EADDRINUSE)
}

func TestStockServerOutput(t *testing.T) {
	stockTest(t)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"-P", "2"}, []string{"receiver", "[  1]", "[  3]", "[SUM]", " 0.00-1."}},
		{[]string{"-R"}, []string{"sender"}},
		{[]string{"-u", "-b", "10M"}, []string{"Jitter", "Lost/Total", "ms", "0/"}},
		{[]string{"-O", "1"}, []string{"(omitted)"}},
	} {
		s := serve(t, &loopback{}, nil)
		said := iperf3(t, s, append(c.args, "-t", "1", "--get-server-output")...)
		for _, want := range append(c.want, "Accepted connection from 127.0.0.1, port ", "sec", "Bytes") {
			require.Contains(t, said.ServerOutput, want, "%v", c.args)
		}
		s.stop()
	}
}

// One test at a time: a second client is told that the server is busy, and the first is not disturbed.
func TestStockBusy(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{}, nil)
	first := make(chan stock)
	go func() {
		defer close(first)
		first <- iperf3(t, s, "-t", "2")
	}()
	s.log.await(t, "iperf3 test begins")
	out, err := iperf3Text(t, s, "-t", "1")
	require.Error(t, err)
	require.Contains(t, string(out), "the server is busy running a test")
	require.Len(t, s.log.find("iperf3 client refused: another test runs"), 1)
	said := <-first
	require.GreaterOrEqual(t, said.End.SumReceived.Seconds, 1.9)
	arrived(t, said.End.SumSent.Bytes, said.End.SumReceived.Bytes, tcpBlock)
	iperf3(t, s, "-n", "1K")
}

// A server that stops tells the client so.
func TestStockServerStops(t *testing.T) {
	stockTest(t)
	s := serve(t, &loopback{}, nil)
	out := make(chan string)
	go func() {
		b, _ := iperf3Text(t, s, "-t", "10", "-R")
		out <- string(b)
	}()
	s.log.await(t, "iperf3 test begins")
	s.stop()
	require.Contains(t, <-out, "the server has terminated")
	require.Len(t, s.log.find("iperf3 test ended: the server stops"), 1)
}

// A client that is interrupted says so, and the next test begins at once.
func TestStockClientInterrupted(t *testing.T) {
	stockTest(t)
	for _, mode := range [][]string{{}, {"-R"}, {"-u", "-b", "0"}, {"-u", "-R", "-b", "0"}, {"--bidir"}} {
		s := serve(t, &loopback{}, nil)
		cmd := iperf3Command(t.Context(), s, append([]string{"-t", "20"}, mode...)...)
		require.NoError(t, cmd.Start())
		s.log.await(t, "iperf3 test begins")
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait()
		r := s.log.await(t, "iperf3 test ended")
		require.ErrorIs(t, r.attrs["error"].Any().(error), errTerminated, "%v", mode)
		s.stop()
	}
}

// A client that dies without a word is one failed test.
func TestStockClientKilled(t *testing.T) {
	stockTest(t)
	for _, mode := range [][]string{{}, {"-R"}, {"-u", "-b", "0"}, {"-u", "-R", "-b", "0"}, {"--bidir"}} {
		s := serve(t, &loopback{}, nil)
		cmd := iperf3Command(t.Context(), s, append([]string{"-t", "20"}, mode...)...)
		require.NoError(t, cmd.Start())
		s.log.await(t, "iperf3 test begins")
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		s.log.await(t, "iperf3 test failed")
		require.Len(t, s.log.find("iperf3 test failed"), 1, "%v", mode)
		s.stop()
	}
}
