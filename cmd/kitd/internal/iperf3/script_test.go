package iperf3

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a client that says what a test wants it to say.
type scripted struct {
	*testing.T
	at     netip.AddrPort
	cookie string
	conn   *net.TCPConn
}

// connect opens a connection that has said nothing.
func (s *serverUnderTest) connect(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(s.at))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	return c
}

// client opens a control connection and sends a cookie of the given letter.
func (s *serverUnderTest) client(t *testing.T, letter string) *scripted {
	t.Helper()
	c := &scripted{T: t, at: s.at, conn: s.connect(t), cookie: strings.Repeat(letter, 36) + "\x00"}
	c.sends(c.cookie)
	return c
}

// begun is a client whose test has the parameters and waits for its streams.
func (s *serverUnderTest) begun(t *testing.T, params string) *scripted {
	t.Helper()
	c := s.client(t, "a")
	c.wants(paramExchange)
	c.sendsFrame(params)
	c.wants(createStreams)
	return c
}

// running is a client with one TCP stream, on which the test runs.
func (s *serverUnderTest) running(t *testing.T, params string) (*scripted, *net.TCPConn) {
	t.Helper()
	c := s.begun(t, params)
	data := c.stream(s)
	c.wants(testStart)
	c.wants(testRunning)
	return c, data
}

// arrived is how many bytes the running test has received.
func (s *serverUnderTest) arrived() (bytes int64) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	for _, st := range s.server.active.streams {
		bytes += st.bytes.Load()
	}
	return bytes
}

func (c *scripted) stream(s *serverUnderTest) *net.TCPConn {
	c.Helper()
	data := s.connect(c.T)
	_, err := data.Write([]byte(c.cookie))
	require.NoError(c, err)
	return data
}

func (c *scripted) sends(text string) {
	c.Helper()
	_, err := c.conn.Write([]byte(text))
	require.NoError(c, err)
}

func (c *scripted) says(s state) { c.Helper(); c.sends(string([]byte{s.wire()})) }

func (c *scripted) sendsFrame(text string) {
	c.Helper()
	c.sends(string(appendFrame(nil, []byte(text))))
}

func (c *scripted) wants(want state) {
	c.Helper()
	var b [1]byte
	_, err := io.ReadFull(c.conn, b[:])
	require.NoError(c, err, "waiting for %v", want)
	require.Equal(c, want.String(), state(b[0]).String())
}

func (c *scripted) wantsFault(want code) {
	c.Helper()
	c.wants(serverError)
	var b [8]byte
	_, err := io.ReadFull(c.conn, b[:])
	require.NoError(c, err)
	require.Equal(c, want, code(binary.BigEndian.Uint32(b[:])))
	c.wantsEnd()
}

// wantsEnd wants the server to say nothing more, and hang up; then it does so, too.
func (c *scripted) wantsEnd() {
	c.Helper()
	wantsEnd(c.T, c.conn)
	_ = c.conn.Close()
}

func wantsEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	n, err := conn.Read(make([]byte, 1))
	require.Zero(t, n)
	require.True(t, errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
}

func (c *scripted) wantsResults() (r results) {
	c.Helper()
	b, err := readFrame(c.conn, maxResults, codeReceiveResults)
	require.NoError(c, err)
	require.NoError(c, json.Unmarshal(b, &r))
	return r
}

// finishes ends a running test by the rules.
func (c *scripted) finishes(theirs string) results {
	c.Helper()
	c.says(testEnd)
	c.wants(exchangeResults)
	c.sendsFrame(theirs)
	r := c.wantsResults()
	c.wants(displayResults)
	c.says(iperfDone)
	c.wantsEnd()
	return r
}

// serves wants the server to run a whole test, whatever came before.
func (s *serverUnderTest) serves(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { // the one before may not be over
		c := s.client(t, "z")
		var b [1]byte
		_, err := io.ReadFull(c.conn, b[:])
		require.NoError(t, err)
		if state(b[0]) == accessDenied {
			return false
		}
		require.Equal(t, paramExchange, state(b[0]))
		c.sendsFrame(`{"tcp":true}`)
		c.wants(createStreams)
		data := c.stream(s)
		c.wants(testStart)
		c.wants(testRunning)
		_, err = data.Write(make([]byte, 1000))
		require.NoError(t, err)
		r := c.finishes(`{"streams":[{"id":1,"bytes":1000}]}`)
		require.Equal(t, int64(1000), r.Streams[0].Bytes)
		return true
	}, 10*time.Second, 20*time.Millisecond)
}

// failedOnce wants one failure in the log, that says something.
func (s *serverUnderTest) failedOnce(t *testing.T, says string) {
	t.Helper()
	r := s.log.await(t, "iperf3 test failed")
	require.Len(t, s.log.find("iperf3 test failed"), 1)
	require.ErrorContains(t, r.attrs["error"].Any().(error), says)
}

func TestScriptTCP(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c, data := s.running(t, `{"tcp":true,"time":1,"parallel":1,"len":1000}`)
	_, err := data.Write(make([]byte, 123456))
	require.NoError(t, err)
	r := c.finishes(`{"streams":[{"id":1,"bytes":123456}]}`)
	require.Equal(t, -1, r.HasRetransmits, "the server has sent nothing")
	require.Len(t, r.Streams, 1)
	got := r.Streams[0]
	require.Positive(t, got.EndTime)
	got.EndTime = 0
	require.Equal(t, streamResult{ID: 1, Bytes: 123456, Retransmits: -1}, got)
	wantsEnd(t, data)
	s.serves(t)
}

// The names in the results are iperf3's.
func TestScriptResultNames(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c, _ := s.running(t, `{"tcp":true,"reverse":true,"len":100,"num":100,"get_server_output":1}`)
	c.says(testEnd)
	c.wants(exchangeResults)
	c.sendsFrame(`{}`)
	b, err := readFrame(c.conn, maxResults, codeReceiveResults)
	require.NoError(t, err)
	var r map[string]any
	require.NoError(t, json.Unmarshal(b, &r))
	for _, name := range []string{
		"cpu_util_total", "cpu_util_user", "cpu_util_system", "sender_has_retransmits", "server_output_text",
	} {
		require.Contains(t, r, name)
	}
	stream := r["streams"].([]any)[0].(map[string]any)
	for _, name := range []string{"id", "bytes", "retransmits", "jitter", "errors", "omitted_errors", "packets", "omitted_packets",
		"start_time", "end_time"} {
		require.Contains(t, stream, name)
	}
	require.Equal(t, 0.0, r["sender_has_retransmits"])
}

// Streams are numbered 1, 3, 4, 5 in the order in which they were opened, though a later one's cookie comes first.
func TestScriptStreamOrder(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c := s.begun(t, `{"tcp":true,"parallel":4}`)
	conns := make([]*net.TCPConn, 4)
	for i := range conns {
		conns[i] = s.connect(t)
	}
	for _, i := range []int{2, 3, 1, 0} {
		_, err := conns[i].Write([]byte(c.cookie))
		require.NoError(t, err)
	}
	c.wants(testStart)
	c.wants(testRunning)
	for i, d := range conns {
		_, err := d.Write(make([]byte, 100*(i+1)))
		require.NoError(t, err)
	}
	r := c.finishes(`{"streams":[{"id":1,"bytes":100},{"id":3,"bytes":200},{"id":4,"bytes":300},{"id":5,"bytes":400}]}`)
	got := map[int]int64{}
	for _, st := range r.Streams {
		got[st.ID] = st.Bytes
	}
	require.Equal(t, map[int]int64{1: 100, 3: 200, 4: 300, 5: 400}, got)
}

// What is said to the port by others than clients is refused, logged once, and in nobody's way.
func TestScriptStrangers(t *testing.T) {
	s := serve(t, &loopback{}, func(c *Config) { c.Timeout = time.Second })
	web := s.connect(t)
	_, err := io.WriteString(web, "GET / HTTP/1.1\r\nHost: 127.0.0.1:5201\r\n\r\n")
	require.NoError(t, err)
	wantsEnd(t, web)
	r := s.log.await(t, "iperf3 client refused")
	require.ErrorContains(t, r.attrs["error"].Any().(error), "not an iperf3 client")
	require.Len(t, s.log.find("iperf3 client refused"), 1)

	require.NoError(t, s.connect(t).Close())
	silent := s.connect(t)
	s.serves(t)
	wantsEnd(t, silent)
	require.Len(t, s.log.find("iperf3 client refused"), 2, "the silent one, not the one that hung up at once")
}

// A client that breaks the rules is told so, where it can be, and logged once.
func TestScriptLiars(t *testing.T) {
	for _, c := range []struct {
		name string
		does func(*serverUnderTest, *testing.T)
		says string
	}{
		{"JSON too long", func(s *serverUnderTest, t *testing.T) {
			c := s.client(t, "a")
			c.wants(paramExchange)
			c.sends("\x00\x01\x00\x01" + strings.Repeat(" ", 65537))
			c.wantsFault(codeReceiveParams)
		}, "65537 bytes is announced"},
		{"no JSON", func(s *serverUnderTest, t *testing.T) {
			c := s.client(t, "a")
			c.wants(paramExchange)
			c.sendsFrame("{]")
			c.wantsFault(codeReceiveParams)
		}, "not what JSON"},
		{"too many streams", func(s *serverUnderTest, t *testing.T) {
			c := s.client(t, "a")
			c.wants(paramExchange)
			c.sendsFrame(`{"tcp":true,"parallel":1000}`)
			c.wantsFault(codeStreams)
		}, "parallel is 1000"},
		{"no parameters", func(s *serverUnderTest, t *testing.T) {
			c := s.client(t, "a")
			c.wants(paramExchange)
			c.wantsFault(codeNoMessage)
		}, "did not send its parameters"},
		{"half of the parameters", func(s *serverUnderTest, t *testing.T) {
			c := s.client(t, "a")
			c.wants(paramExchange)
			c.sends("\x00\x00\x00\x10{")
			c.wantsFault(codeNoMessage)
		}, "did not send its parameters"},
		{"hangs up with half of the parameters", func(s *serverUnderTest, t *testing.T) {
			c := s.client(t, "a")
			c.wants(paramExchange)
			c.sends("\x00\x00\x00\x10{")
			require.NoError(t, c.conn.Close())
		}, "unexpected EOF"},
		{"no streams", func(s *serverUnderTest, t *testing.T) {
			s.begun(t, `{"tcp":true}`).wantsFault(codeStreamAccept)
		}, "did not open its 1 streams"},
		{"no UDP streams", func(s *serverUnderTest, t *testing.T) {
			s.begun(t, `{"udp":true,"parallel":2,"bidirectional":true}`).wantsFault(codeStreamAccept)
		}, "did not open its 4 streams"},
		{"TEST_END without streams", func(s *serverUnderTest, t *testing.T) {
			c := s.begun(t, `{"tcp":true}`)
			c.says(testEnd)
			c.wantsFault(codeMessage)
		}, "TEST_END out of turn"},
		{"no state at all", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true}`)
			c.says(99)
			c.wantsFault(codeMessage)
		}, "state 99 out of turn"},
		{"IPERF_DONE while it runs", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true,"reverse":true}`)
			c.says(iperfDone)
			c.wantsFault(codeMessage)
		}, "IPERF_DONE out of turn"},
		{"no data", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true}`)
			c.wantsFault(codeNoMessage)
		}, "no data moved"},
		{"takes no data", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true,"reverse":true}`)
			c.wantsFault(codeNoMessage)
		}, "no data moved"},
		{"never ends", func(s *serverUnderTest, t *testing.T) {
			c, data := s.running(t, `{"tcp":true,"reverse":true,"time":1}`)
			go func() { _, _ = io.Copy(io.Discard, data) }()
			c.wantsFault(codeExpired)
		}, "did not end its test within 2s"},
		{"closes its stream", func(s *serverUnderTest, t *testing.T) {
			c, data := s.running(t, `{"tcp":true}`)
			require.NoError(t, data.Close())
			c.wantsFault(codeStreamRead)
		}, "stream 1: EOF"},
		{"resets its stream", func(s *serverUnderTest, t *testing.T) {
			c, data := s.running(t, `{"tcp":true,"reverse":true}`)
			require.NoError(t, data.SetLinger(0))
			require.NoError(t, data.Close())
			c.wantsFault(codeStreamWrite)
		}, "stream 1: "},
		{"no results", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true}`)
			c.says(testEnd)
			c.wants(exchangeResults)
			c.wantsFault(codeNoMessage)
		}, "did not send its results"},
		{"results too long", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true}`)
			c.says(testEnd)
			c.wants(exchangeResults)
			c.sends("\x00\x10\x00\x01")
			c.wantsFault(codeReceiveResults)
		}, "1048577 bytes is announced"},
		{"results without sense", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true}`)
			c.says(testEnd)
			c.wants(exchangeResults)
			c.sendsFrame(`{"streams":[{"id":-7}]}`)
			c.wantsFault(codeReceiveResults)
		}, "a stream -7"},
		{"the last word is another", func(s *serverUnderTest, t *testing.T) {
			c, _ := s.running(t, `{"tcp":true}`)
			c.says(testEnd)
			c.wants(exchangeResults)
			c.sendsFrame(`{}`)
			c.wantsResults()
			c.wants(displayResults)
			c.says(testStart)
			c.wantsFault(codeMessage)
		}, "TEST_START out of turn"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &loopback{}, func(c *Config) { c.Timeout, c.IdleTimeout = time.Second, time.Second })
			c.does(s, t)
			s.failedOnce(t, c.says)
			s.serves(t)
		})
	}
}

// A client may hang up at any time.
func TestScriptHangsUp(t *testing.T) {
	for name, does := range map[string]func(*serverUnderTest, *testing.T) *scripted{
		"before its parameters": func(s *serverUnderTest, t *testing.T) *scripted { return s.client(t, "a") },
		"before its streams":    func(s *serverUnderTest, t *testing.T) *scripted { return s.begun(t, `{"tcp":true}`) },
		"before its UDP streams": func(s *serverUnderTest, t *testing.T) *scripted {
			return s.begun(t, `{"udp":true}`)
		},
		"while it runs": func(s *serverUnderTest, t *testing.T) *scripted {
			c, _ := s.running(t, `{"tcp":true}`)
			return c
		},
		"before its results": func(s *serverUnderTest, t *testing.T) *scripted {
			c, _ := s.running(t, `{"tcp":true,"reverse":true}`)
			c.says(testEnd)
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &loopback{}, nil)
			require.NoError(t, does(s, t).conn.Close())
			s.failedOnce(t, "")
			s.serves(t)
		})
	}
}

// A client that takes its results and hangs up without IPERF_DONE has had its test.
func TestScriptHangsUpAfterResults(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c, _ := s.running(t, `{"tcp":true}`)
	c.says(testEnd)
	c.wants(exchangeResults)
	c.sendsFrame(`{}`)
	c.wantsResults()
	require.NoError(t, c.conn.Close())
	s.serves(t)
	require.Empty(t, s.log.find("iperf3 test failed"))
}

// A client whose results promise what it never sent gets what came, after a short wait.
func TestScriptPromises(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c, data := s.running(t, `{"tcp":true}`)
	_, err := data.Write(make([]byte, 500))
	require.NoError(t, err)
	r := c.finishes(`{"streams":[{"id":1,"bytes":1e18},{"id":99,"bytes":5}]}`)
	require.Equal(t, int64(500), r.Streams[0].Bytes)
}

// What came in the omitted time is in no figures of TCP, and apart in those of UDP.
func TestScriptOmit(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c, data := s.running(t, `{"tcp":true,"omit":1}`)
	_, err := data.Write(make([]byte, 1000))
	require.NoError(t, err)
	s.log.await(t, "iperf3 test counts from now on")
	_, err = data.Write(make([]byte, 500))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.arrived() == 1500 }, 10*time.Second, time.Millisecond)
	r := c.finishes(`{"streams":[{"id":1,"bytes":500}]}`)
	require.Equal(t, int64(500), r.Streams[0].Bytes)

	s = serve(t, &loopback{}, nil)
	c, u := s.runningUDP(t, `{"udp":true,"omit":1,"len":100}`)
	sends := func(seqs ...int64) {
		for _, seq := range seqs {
			_, err := u.Write(datagram(seq, 0, false, 100))
			require.NoError(t, err)
		}
	}
	sends(1, 3)
	s.log.await(t, "iperf3 test counts from now on")
	sends(4, 5, 7, 8)
	r = c.finishes(`{"streams":[{"id":1,"bytes":600,"packets":8}]}`)
	require.Equal(t, []int64{400, 8, 3, 2, 1}, []int64{r.Streams[0].Bytes, r.Streams[0].Packets, r.Streams[0].OmittedPackets,
		r.Streams[0].Errors, r.Streams[0].OmittedErrors})
}

// What is still on its way when the test ends is counted, and so is the time it took.
func TestScriptLateData(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c, data := s.running(t, `{"tcp":true}`)
	c.says(testEnd)
	c.wants(exchangeResults)
	_, err := data.Write(make([]byte, 300))
	require.NoError(t, err)
	c.sendsFrame(`{"streams":[{"id":1,"bytes":300}]}`)
	r := c.wantsResults()
	require.Equal(t, int64(300), r.Streams[0].Bytes)
	require.Positive(t, r.Streams[0].EndTime)
}

// While a test waits for its streams, those of other tests and those too many are turned away.
func TestScriptForeignStreams(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c := s.begun(t, `{"tcp":true,"parallel":2}`)
	c.stream(s)
	s.client(t, "b").wants(accessDenied)
	c.stream(s)
	c.wants(testStart)
	c.wants(testRunning)
	late := &scripted{T: t, conn: c.stream(s)}
	late.wants(accessDenied)
	late.wantsEnd()
	require.Len(t, s.log.find("iperf3 client refused: another test runs"), 2)
	c.finishes(`{}`)
}

// peer is a UDP socket of a scripted client.
func (c *scripted) peer(from string) *net.UDPConn {
	c.Helper()
	u, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.UDPAddrFromAddrPort(c.at))
	require.NoError(c, err)
	c.Cleanup(func() { _ = u.Close() })
	require.NoError(c, u.SetReadDeadline(time.Now().Add(10*time.Second)))
	return u
}

// greets opens a UDP stream and wants it confirmed.
func (c *scripted) greets(u *net.UDPConn, ask, answer string) {
	c.Helper()
	_, err := io.WriteString(u, ask)
	require.NoError(c, err)
	b := make([]byte, 100)
	n, err := u.Read(b)
	require.NoError(c, err)
	require.Equal(c, answer, string(b[:n]))
}

// runningUDP is a client with one UDP stream, on which the test runs.
func (s *serverUnderTest) runningUDP(t *testing.T, params string) (*scripted, *net.UDPConn) {
	t.Helper()
	c := s.begun(t, params)
	u := c.peer("127.0.0.1:0")
	c.greets(u, "9876", "6789")
	c.wants(testStart)
	c.wants(testRunning)
	return c, u
}

func TestScriptUDP(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c := s.begun(t, `{"udp":true,"parallel":2,"len":100}`)
	stranger, noise := c.peer("127.0.0.2:0"), c.peer("127.0.0.1:0")
	for _, junk := range []string{"9876", "what", "", strings.Repeat("9876", 25)} {
		_, err := io.WriteString(stranger, junk)
		require.NoError(t, err)
		if junk != "9876" {
			_, err = io.WriteString(noise, junk)
			require.NoError(t, err)
		}
	}
	one, two := c.peer("127.0.0.1:0"), c.peer("127.0.0.1:0")
	c.greets(one, "9876", "6789")
	c.greets(one, "9876", "6789") // the answer was lost, say
	c.greets(two, "\x15\xcd\x5b\x07", "\xb1\x68\xde\x3a")
	c.wants(testStart)
	c.wants(testRunning)
	c.greets(two, "9876", "6789")
	for _, seq := range []int64{1, 2, 5, 4} { // 3 is lost, 4 is late
		_, err := one.Write(datagram(seq, 0, false, 100))
		require.NoError(t, err)
	}
	_, err := two.Write(datagram(2, 0, false, 50))
	require.NoError(t, err)
	for _, u := range []*net.UDPConn{stranger, noise} {
		_, err := u.Write(datagram(1, 0, false, 100))
		require.NoError(t, err)
	}
	r := c.finishes(`{"streams":[{"id":1,"bytes":500,"packets":5},{"id":3,"bytes":100,"packets":2}]}`)
	for i := range r.Streams {
		require.Positive(t, r.Streams[i].EndTime)
		r.Streams[i].EndTime, r.Streams[i].Jitter = 0, 0
	}
	require.Equal(t, []streamResult{
		{ID: 1, Bytes: 400, Retransmits: -1, Errors: 1, Packets: 5},
		{ID: 3, Bytes: 50, Retransmits: -1, Errors: 1, Packets: 2},
	}, r.Streams)
	require.NoError(t, stranger.SetReadDeadline(time.Now()))
	_, err = stranger.Read(make([]byte, 10))
	require.Error(t, err, "a stranger is answered nothing")
	s.serves(t)
}

// The datagrams that the server sends are numbered from 1 and carry the length that was asked for.
func TestScriptUDPSends(t *testing.T) {
	for _, wide := range []string{"0", "1"} {
		s := serve(t, &loopback{}, nil)
		c, u := s.runningUDP(t, `{"udp":true,"reverse":true,"len":333,"bandwidth":2000000,"udp_counters_64bit":`+wide+`}`)
		for want := uint64(1); want <= 20; want++ {
			b := make([]byte, 1000)
			n, err := u.Read(b)
			require.NoError(t, err)
			require.Equal(t, 333, n)
			require.InDelta(t, time.Now().Unix(), binary.BigEndian.Uint32(b), 5)
			require.Less(t, binary.BigEndian.Uint32(b[4:]), uint32(1e6))
			seq := uint64(binary.BigEndian.Uint32(b[8:]))
			if wide == "1" {
				seq = binary.BigEndian.Uint64(b[8:])
			}
			require.Equal(t, want, seq)
		}
		r := c.finishes(`{}`)
		require.GreaterOrEqual(t, r.Streams[0].Packets, int64(20))
		require.Equal(t, r.Streams[0].Packets*333, r.Streams[0].Bytes)
		s.stop()
	}
}

// A setting that the client asked for and that cannot be made ends the test.
func TestScriptSettingsFail(t *testing.T) {
	for setting, want := range map[string]code{
		"SetNoDelay": codeSetNoDelay, "SetMaxSegment": codeSetMSS, "SetTOS": codeSetTOS, "SetReadBuffer": codeSetBuffer,
		"SetWriteBuffer": codeSetBuffer, "SetCongestion": codeSetCongestion,
	} {
		s := serve(t, &loopback{tcp: func(c *net.TCPConn) net.Conn { return broken{c, setting, syscall.EPERM} }}, nil)
		c := s.begun(t, `{"tcp":true,"nodelay":true,"MSS":1000,"TOS":16,"window":100000,"congestion":"cubic"}`)
		c.stream(s)
		c.wantsFault(want)
		s.failedOnce(t, "operation not permitted")
	}
}

func TestScriptUDPFails(t *testing.T) {
	fails := func() error { return syscall.EHOSTUNREACH }
	for _, c := range []struct {
		name   string
		socket brokenUDP
		params string
		want   code
	}{
		{"TOS", brokenUDP{tos: fails}, `{"udp":true,"TOS":16}`, codeSetTOS},
		{"buffer", brokenUDP{buffer: fails}, `{"udp":true,"window":100000}`, codeSetBuffer},
		{"reading", brokenUDP{read: fails}, `{"udp":true}`, codeStreamAccept},
	} {
		s := serve(t, &loopback{udp: func(u *net.UDPConn) net.PacketConn { c.socket.UDPConn = u; return &c.socket }}, nil)
		client := s.client(t, "a")
		client.wants(paramExchange)
		client.sendsFrame(c.params)
		if c.name == "reading" {
			client.wants(createStreams)
		}
		client.wantsFault(c.want)
		s.failedOnce(t, "")
	}
}

// Where there was no room for a datagram, it is sent again under its number. A network that is gone ends the test.
func TestScriptUDPSendsAgain(t *testing.T) {
	var calls, gone atomic.Int64
	l := &loopback{udp: func(u *net.UDPConn) net.PacketConn {
		return &brokenUDP{UDPConn: u, write: func() error {
			if gone.Load() > 0 {
				return os.NewSyscallError("sendto", syscall.EHOSTUNREACH)
			}
			if calls.Add(1)%3 == 0 {
				return os.NewSyscallError("sendto", syscall.ENOBUFS)
			}
			return nil
		}}
	}}
	s := serve(t, l, nil)
	c, u := s.runningUDP(t, `{"udp":true,"reverse":true,"len":100}`)
	for want := uint32(1); want <= 20; want++ {
		b := make([]byte, 100)
		_, err := u.Read(b)
		require.NoError(t, err)
		require.Equal(t, want, binary.BigEndian.Uint32(b[8:]))
	}
	gone.Store(1)
	c.wantsFault(codeStreamWrite)
	s.failedOnce(t, "no route to host")
}

// The end of the server ends whatever a client is at, soon.
func TestScriptServerStops(t *testing.T) {
	for name, does := range map[string]func(*serverUnderTest, *testing.T) *scripted{
		"no cookie": func(s *serverUnderTest, t *testing.T) *scripted { s.connect(t); return nil },
		"no parameters": func(s *serverUnderTest, t *testing.T) *scripted {
			c := s.client(t, "a")
			c.wants(paramExchange)
			return c
		},
		"no streams": func(s *serverUnderTest, t *testing.T) *scripted { return s.begun(t, `{"tcp":true,"parallel":2}`) },
		"half of its streams": func(s *serverUnderTest, t *testing.T) *scripted {
			c := s.begun(t, `{"tcp":true,"parallel":2}`)
			c.stream(s)
			return c
		},
		"no UDP streams": func(s *serverUnderTest, t *testing.T) *scripted { return s.begun(t, `{"udp":true}`) },
		"receiving":      func(s *serverUnderTest, t *testing.T) *scripted { c, _ := s.running(t, `{"tcp":true}`); return c },
		"sending": func(s *serverUnderTest, t *testing.T) *scripted {
			c, _ := s.running(t, `{"tcp":true,"reverse":true}`)
			return c
		},
		"no results": func(s *serverUnderTest, t *testing.T) *scripted {
			c, _ := s.running(t, `{"tcp":true}`)
			c.says(testEnd)
			c.wants(exchangeResults)
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &loopback{}, func(c *Config) { c.Timeout, c.IdleTimeout = time.Minute, time.Minute })
			c := does(s, t)
			start := time.Now()
			s.stop()
			require.Less(t, time.Since(start), 5*time.Second)
			if c != nil {
				c.wants(serverTerminate)
				c.wantsEnd()
			}
		})
	}
}

// One server runs one test, whatever the number of its addresses, and a stream may come to any of them.
func TestScriptTwoAddresses(t *testing.T) {
	l := &loopback{}
	s := serve(t, l, nil)
	ended := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- s.server.Serve(ctx, netip.MustParseAddrPort("127.0.0.2:0")) }()
	other := &serverUnderTest{at: <-l.listening, log: s.log}
	c := s.begun(t, `{"tcp":true}`)
	other.client(t, "b").wants(accessDenied)
	c.stream(other)
	c.wants(testStart)
	c.wants(testRunning)
	c.finishes(`{}`)
	other.serves(t)
	cancel()
	require.NoError(t, <-ended)
	s.serves(t)
}

// Connections without a cookie are held in a limited number.
func TestScriptManySilent(t *testing.T) {
	s := serve(t, &loopback{}, nil)
	c := s.begun(t, `{"tcp":true}`)
	silent := make([]*net.TCPConn, maxWaiting)
	for i := range silent {
		silent[i] = s.connect(t)
	}
	wantsEnd(t, s.connect(t))
	require.NoError(t, silent[0].Close())
	require.Eventually(t, func() bool { // there is room for one again
		data := c.stream(s)
		_ = data.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := data.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}, 10*time.Second, 10*time.Millisecond)
	c.wants(testStart)
}
