package iperf3

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asked312 is what the stock client 3.12 sends for -u -R -O 1 -P 2 -b 2M/4 -w 100K -S 16 -C cubic --get-server-output.
const asked312 = `{"udp":true,"omit":1,"time":10,"num":0,"blockcount":0,"parallel":2,"reverse":true,"window":102400,` +
	`"len":32768,"bandwidth":2000000,"pacing_timer":1000,"burst":4,"TOS":16,"congestion":"cubic","get_server_output":1,` +
	`"udp_counters_64bit":1,"client_version":"3.12"}`

func TestParams(t *testing.T) {
	p, err := parseParams([]byte(asked312))
	require.NoError(t, err)
	require.Equal(t, &params{
		udp: true, reverse: true, parallel: 2, omit: time.Second, duration: 10 * time.Second, length: 32768, rate: 2e6, burst: 4,
		pacing: time.Millisecond, window: 102400, tos: 16, congestion: "cubic", wide: true, serverOutput: true, version: "3.12",
	}, p)
	require.True(t, p.sends())
	require.Equal(t, 2, p.streams())
}

// What the client leaves out is iperf3's default; what has a type that does not belong there is left out, too.
func TestParamsDefaults(t *testing.T) {
	want := &params{parallel: 1, length: 128 << 10, burst: 1, pacing: time.Millisecond}
	for _, text := range []string{
		`{"tcp":true}`,
		`{"tcp":1,"udp":0,"reverse":false,"len":0,"unknown":[{"a":1}]}`,
		`{"TCP":true,"parallel":"x","time":null,"num":[1],"congestion":7,"client_version":{},"omit":true}`,
		`{"tcp":true,"bandwidth":1e17}`,
	} {
		p, err := parseParams([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, p, text)
	}
	p, err := parseParams([]byte(`{"udp":true,"bidirectional":true,"parallel":3}`))
	require.NoError(t, err)
	require.Equal(t, 1460, p.length)
	require.Equal(t, 6, p.streams())
	require.True(t, p.sends())
}

// cJSON writes large numbers with an exponent.
func TestParamsNumbers(t *testing.T) {
	for text, want := range map[string]int64{
		"1e+15": 1e15, "1.5": 1, "10737418240": 10 << 30, "1e300": math.MaxInt64, "1e999": math.MaxInt64,
	} {
		p, err := parseParams([]byte(`{"tcp":true,"num":` + text + `}`))
		require.NoError(t, err, text)
		require.Equal(t, want, p.bytes, text)
	}
}

func TestParamsRefused(t *testing.T) {
	for text, want := range map[string]code{
		``:                                codeReceiveParams,
		`{"tcp":true`:                     codeReceiveParams,
		`[]`:                              codeReceiveParams,
		`{"tcp":true}{"tcp":true}`:        codeReceiveParams,
		`{}`:                              codeProtocol,
		`{"sctp":true}`:                   codeProtocol,
		`{"tcp":true,"udp":true}`:         codeProtocol,
		`{"tcp":true,"sctp":true}`:        codeProtocol,
		`{"tcp":true,"parallel":0}`:       codeStreams,
		`{"tcp":true,"parallel":129}`:     codeStreams,
		`{"tcp":true,"len":1048577}`:      codeBlockSize,
		`{"tcp":true,"len":-1}`:           codeBlockSize,
		`{"udp":true,"len":65508}`:        codeUDPBlockSize,
		`{"udp":true,"len":15}`:           codeUDPBlockSize,
		`{"tcp":true,"time":86401}`:       codeDuration,
		`{"tcp":true,"time":-1}`:          codeDuration,
		`{"tcp":true,"omit":601}`:         codeOmit,
		`{"tcp":true,"num":-1}`:           codeReceiveParams,
		`{"tcp":true,"num":-1e300}`:       codeReceiveParams,
		`{"tcp":true,"blockcount":-1}`:    codeReceiveParams,
		`{"tcp":true,"MSS":32768}`:        codeMSS,
		`{"tcp":true,"window":536870913}`: codeBufferSize,
		`{"tcp":true,"bandwidth":-5}`:     codeReceiveParams,
		`{"tcp":true,"pacing_timer":-5}`:  codeReceiveParams,
		`{"tcp":true,"burst":1001}`:       codeBurst,
		`{"tcp":true,"TOS":256}`:          codeTOS,
		`{"tcp":true,"reverse":true,"bidirectional":true}`:            codeReverseBidir,
		`{"tcp":true,"congestion":"` + strings.Repeat("x", 65) + `"}`: codeReceiveParams,
	} {
		_, err := parseParams([]byte(text))
		var f *fault
		require.ErrorAs(t, err, &f, text)
		require.Equal(t, want, f.code, "%s: %v", text, err)
	}
}

// Whatever a client sends, what is made of it is within bounds.
func FuzzParams(f *testing.F) {
	f.Add([]byte(asked312))
	f.Add([]byte(`{"tcp":true,"num":1e300,"bandwidth":9e99,"pacing_timer":1e18,"parallel":128,"bidirectional":1,"len":1048576}`))
	f.Add([]byte(`{"tcp":[1],"udp":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseParams(b)
		if err != nil {
			var f *fault
			require.ErrorAs(t, err, &f)
			require.NotZero(t, f.code)
			return
		}
		within := func(what string, n, lo, hi int64) {
			require.True(t, lo <= n && n <= hi, "%s is %d", what, n)
		}
		within("parallel", int64(p.parallel), 1, 128)
		within("streams", int64(p.streams()), 1, 256)
		within("length", int64(p.length), 1, 1<<20)
		if p.udp {
			within("length", int64(p.length), 16, 65507)
		}
		within("duration", int64(p.duration), 0, int64(24*time.Hour))
		within("omit", int64(p.omit), 0, int64(10*time.Minute))
		within("bytes", p.bytes, 0, math.MaxInt64)
		within("blocks", p.blocks, 0, math.MaxInt64)
		within("rate", p.rate, 0, 1e13)
		within("burst", int64(p.burst), 1, 1000)
		within("pacing", int64(p.pacing), int64(time.Microsecond), int64(time.Second))
		within("window", int64(p.window), 0, 512<<20)
		within("batch", int64(batch(p.length)), 1, 64)
		// Whatever the rate, the arithmetic of pacing holds to the end of the longest test.
		pace := newPacer(p, time.Unix(0, 0), nil)
		n, wait := pace.due(time.Unix(maxTime+maxOmit, 0), 64)
		within("due", int64(n), 1, 64)
		require.Zero(t, wait)
	})
}

func TestResultsOfClient(t *testing.T) {
	// As the stock client 3.12 sends them.
	theirs, err := parseResults([]byte(`{"cpu_util_total":0.08,"cpu_util_user":0.02,"cpu_util_system":0.05,` +
		`"sender_has_retransmits":18446744073709551615,"streams":[{"id":1,"bytes":131072,"retransmits":18446744073709551615,` +
		`"jitter":7.3e-06,"errors":0,"packets":9,"start_time":0,"end_time":1.00002},{"id":3,"bytes":5,"packets":2}]}`))
	require.NoError(t, err)
	require.Equal(t, map[int]clientStream{1: {1, 131072, 9}, 3: {3, 5, 2}}, theirs)
	for _, text := range []string{
		``, `[`, `[]`, `{"streams":7}`, `{"streams":[{"id":0}]}`, `{"streams":[{"id":258}]}`, `{"streams":[{"id":1,"bytes":-1}]}`,
		`{"streams":[{"id":1,"packets":-1}]}`,
	} {
		_, err := parseResults([]byte(text))
		var f *fault
		require.ErrorAs(t, err, &f, text)
		require.Equal(t, codeReceiveResults, f.code)
	}
}

func FuzzResults(f *testing.F) {
	f.Add([]byte(`{"streams":[{"id":1,"bytes":131072,"packets":9},{"id":3,"bytes":1e30}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		theirs, err := parseResults(b)
		if err != nil {
			var f *fault
			require.ErrorAs(t, err, &f)
			return
		}
		require.LessOrEqual(t, len(theirs), 2*maxStreams+1)
		for id, s := range theirs {
			require.Equal(t, id, int(s.ID))
			require.GreaterOrEqual(t, s.Bytes, number(0))
			require.GreaterOrEqual(t, s.Packets, number(0))
		}
	})
}

// The message of a fault has iperf3's number and errno, where there is one.
func TestFaultMessage(t *testing.T) {
	var f *fault
	require.ErrorAs(t, faultf(codeStreamListen, "open: %w", errNoSuchAlgorithm), &f)
	require.Equal(t, []byte{0xfe, 0, 0, 0, 202, 0, 0, 0, 2}, f.message())
	require.ErrorIs(t, f, errNoSuchAlgorithm)
	require.ErrorAs(t, faultf(codeExpired, "late"), &f)
	require.Equal(t, []byte{0xfe, 0, 0, 0, 160, 0, 0, 0, 0}, f.message())
}

func TestStateNames(t *testing.T) {
	require.Equal(t, "TEST_RUNNING", testRunning.String())
	require.Equal(t, "state 99", state(99).String())
	require.Equal(t, byte(0xff), accessDenied.wire())
}

func TestCookie(t *testing.T) {
	good := strings.Repeat("a", 36) + "\x00"
	c, err := readCookie(strings.NewReader(good))
	require.NoError(t, err)
	require.Equal(t, good, string(c[:]))
	// iperf3 before 3.1 sent the host's name and the time, which may be shorter.
	_, err = readCookie(strings.NewReader("host.1234567890.123456" + strings.Repeat("\x00", 15)))
	require.NoError(t, err)
	for _, bad := range []string{
		strings.Repeat("a", 37),                                        // no end
		strings.Repeat("\x00", 37),                                     // nothing
		"GET / HTTP/1.1\r\nHost: 127.0.0.1:5201\r\n\r\n",               // somebody else
		strings.Repeat("a", 20) + "\x00b" + strings.Repeat("\x00", 15), // goes on behind its end
	} {
		_, err := readCookie(strings.NewReader(bad))
		require.ErrorContains(t, err, "not an iperf3 client", "%q", bad)
	}
	_, err = readCookie(strings.NewReader("short"))
	require.Error(t, err)
}

func TestFrames(t *testing.T) {
	b, err := readFrame(strings.NewReader("\x00\x00\x00\x02{}rest"), 2, codeReceiveResults)
	require.NoError(t, err)
	require.Equal(t, "{}", string(b))
	require.Equal(t, []byte("x\x00\x00\x00\x02{}"), appendFrame([]byte("x"), []byte("{}")))
	for _, bad := range []string{"\x00\x00\x00\x00", "\x00\x00\x00\x03{ }", "\xff\xff\xff\xff"} {
		_, err := readFrame(strings.NewReader(bad), 2, codeReceiveResults)
		require.ErrorContains(t, err, "is announced")
	}
	for _, short := range []string{"", "\x00\x00", "\x00\x00\x00\x02", "\x00\x00\x00\x02{"} {
		_, err := readFrame(strings.NewReader(short), 2, codeReceiveResults)
		require.Error(t, err)
	}
}

func TestScaled(t *testing.T) {
	for _, c := range []struct {
		n, step float64
		want    string
	}{
		{0, 1000, "0.00 "}, {1.5, 1000, "1.50 "}, {999, 1000, "999 "}, {1000, 1000, "1.00 K"}, {12345, 1000, "12.3 K"},
		{1 << 20, 1024, "1.00 M"}, {9.999e9, 1000, "10.0 G"}, {128 << 10, 1024, "128 K"}, {1e30, 1000, "1000000000000 E"},
	} {
		require.Equal(t, c.want, scaled(c.n, c.step), fmt.Sprint(c.n))
	}
	require.Zero(t, bitRate(100, 0))
	require.Equal(t, 800.0, bitRate(100, time.Second))
	require.Zero(t, percent(1, 0))
	require.Equal(t, 25.0, percent(1, 4))
}

// A report has a limit, behind which there are only totals.
func TestReportIsBounded(t *testing.T) {
	s := newStream(0, false)
	r := &report{p: &params{udp: true}}
	for i := range 20000 {
		s.packets.Add(2)
		s.disorder.Add(1)
		r.interval([]*stream{s}, time.Duration(i)*time.Second, time.Duration(i+1)*time.Second, false)
	}
	r.totals([]*stream{s}, []counters{s.counters()}, []time.Duration{20000 * time.Second})
	require.Less(t, len(r.text()), maxReport+2000)
	require.Equal(t, 1, strings.Count(r.text(), "further intervals are left out"))
	require.Contains(t, r.text(), "1 out of order")
	require.True(t, strings.HasSuffix(r.text(), "0/40000 (0%)  20000 out of order  receiver\n"), r.text()[len(r.text())-200:])
}

func TestProblemOfEvents(t *testing.T) {
	require.NoError(t, event{state: testEnd}.problem())
	require.ErrorIs(t, event{state: clientTerminate}.problem(), errTerminated)
	require.ErrorContains(t, event{err: errors.New("broken")}.problem(), "broken")
}
