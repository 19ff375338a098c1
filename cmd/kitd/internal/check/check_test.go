package check

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/loader"
)

// other is a kitd that holds eth7.
type other struct{}

func (other) Status() control.Status { return control.Status{Version: 1, PID: 4711, Interface: "eth7"} }
func (other) Stats() control.Stats   { return control.Stats{} }
func (other) Connect(context.Context, string, bool) (control.Stream, error) {
	return nil, errors.New("no")
}
func (other) Sockets(string) (control.Sockets, error) { return control.Sockets{}, nil }
func (other) Neighbors() control.Neighbors            { return control.Neighbors{} }
func (other) Routes() control.Routes                  { return control.Routes{} }
func (other) Queues() control.Queues                  { return control.Queues{} }
func (other) Capture(control.CaptureRequest) (control.CaptureRun, error) {
	return func(context.Context, io.Writer, func()) control.CaptureResult { return control.CaptureResult{} }, errors.New("no")
}

func TestRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	look := func(card string) loader.Finding {
		return running(t.Context(), &config.Config{Interface: card, Control: path})
	}
	require.Equal(t, loader.OK, look("eth0").Severity)

	l, err := control.Listen(path)
	require.NoError(t, err)
	server, done := control.NewServer(other{}), make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	require.Equal(t, loader.Finding{Topic: "other kitd", Severity: loader.Fail, What: "kitd, pid 4711, holds eth7 already",
		Fix: "kill 4711, or ask it with kitd status"}, look("eth7"))
	require.Equal(t, loader.Warn, look("eth0").Severity, "another card, but the same control socket")
	require.NoError(t, server.Close())
	require.NoError(t, <-done)

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Equal(t, loader.OK, look("eth0").Severity, "what is no socket answers nobody")
}

func TestPorts(t *testing.T) {
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	number := uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}
	look := func(s config.Service) loader.Finding {
		list := shared(&config.Config{Interface: "lo", Services: []config.Service{s}}, loopback)
		require.Len(t, list, 2)
		require.Equal(t, loader.OK, list[0].Severity)
		return list[1]
	}
	echo := config.Service{Name: "udp-echo", Port: number}
	f := look(echo)
	require.Equal(t, loader.Fail, f.Severity)
	require.Contains(t, f.What, "another program has 127.0.0.1:")
	require.Contains(t, f.Fix, "ss -ltunp 'sport = :")
	require.Equal(t, loader.OK, look(config.Service{Name: "tcp-echo", Port: number}).Severity, "of TCP it is free")
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer listener.Close()
	require.Equal(t, loader.Fail, look(config.Service{Name: "tcp-echo", Port: uint16(listener.Addr().(*net.TCPAddr).Port)}).Severity)
	require.NoError(t, taken.Close())
	require.Equal(t, loader.OK, look(echo).Severity)
	echo.Addr = netip.MustParseAddr("192.0.2.1")
	f = look(echo)
	require.Equal(t, loader.Fail, f.Severity)
	require.Contains(t, f.What, "192.0.2.1 is no address of this machine")
}

func TestNoAddressToShare(t *testing.T) {
	list := shared(&config.Config{Interface: "eth7"}, nil)
	require.Len(t, list, 1)
	require.Equal(t, loader.Fail, list[0].Severity)
	require.Contains(t, list[0].Fix, "ip address add 10.0.0.5/24 dev eth7")
}

func TestWhoHasOnNoEthernet(t *testing.T) {
	card, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	_, err = whoHas(t.Context(), card, netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1"))
	require.ErrorContains(t, err, "lo is no Ethernet card")
}

func TestRunOnLoopback(t *testing.T) {
	list, err := Run(t.Context(), load(t, "", "--interface=lo"))
	require.NoError(t, err)
	topics := map[string]bool{}
	for _, f := range list {
		topics[f.Topic] = true
		require.NotEmpty(t, f.What)
		require.Equal(t, f.Severity == loader.OK, f.Fix == "", "%s: whoever is told of trouble is told what to do", f.Topic)
	}
	for _, topic := range []string{"kernel", "other kitd", "address", "gateway", "wait"} {
		require.True(t, topics[topic], topic)
	}
}

// load is what kitd has read, from a file's text and flags.
func load(t *testing.T, file string, flags ...string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kitd.toml")
	require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
	var s config.Sources
	set := pflag.NewFlagSet("check", pflag.ContinueOnError)
	config.Register(set, &s)
	require.NoError(t, set.Parse(append(flags, "--config="+path, "--control="+filepath.Join(t.TempDir(), "c.sock"))))
	c, err := config.Load(s)
	require.NoError(t, err)
	return c
}

// A file's settings reach the loader, flags above them, as kitd run has them.
func TestSettings(t *testing.T) {
	s, err := settings(load(t, "frame-size = 4096\nframes = 8192\nring-size = 1024\nmtu = 1400\nqueues = [0, 2]\n"+
		"attach = \"native\"\ncopy = \"zerocopy\"\n", "--interface=eth7", "--attach=generic"))
	require.NoError(t, err)
	require.Equal(t, loader.Config{
		Interface: "eth7", Attach: loader.AttachGeneric, Copy: loader.CopyZero, Queues: []int{0, 2}, FrameSize: 4096, Frames: 8192,
		RingSize: 1024, MTU: 1400,
	}, s)
}

// What is judged is what the file asks for, not the defaults.
func TestRunJudgesTheConfiguration(t *testing.T) {
	find := func(file, topic string) loader.Finding {
		list, err := Run(t.Context(), load(t, file, "--interface=lo"))
		require.NoError(t, err)
		i := slices.IndexFunc(list, func(f loader.Finding) bool { return f.Topic == topic })
		require.GreaterOrEqual(t, i, 0, "nothing is said of %s in %+v", topic, list)
		return list[i]
	}
	require.Equal(t, loader.OK, find("", "queues").Severity)
	require.Equal(t, loader.Fail, find("queues = [77]", "queues").Severity)
	require.Contains(t, find("mtu = 9000\nframe-size = 2048", "locked memory").What, "MiB")
	require.Contains(t, find("wait = \"interrupt\"", "wait").What, "sleep between frames")
	require.Equal(t, loader.OK, find("metrics = \"127.0.0.1:0\"", "metrics").Severity)
}

func TestMetricsPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	f := metrics(l.Addr().String())
	require.Equal(t, loader.Fail, f.Severity)
	require.Contains(t, f.What, "address already in use")
}

func TestWaiting(t *testing.T) {
	facts := &loader.Facts{CPUs: 4, Card: &loader.CardFacts{RxQueues: 4}}
	for _, c := range []struct {
		config   config.Config
		severity loader.Severity
		what     string
	}{
		{config.Config{Wait: "busy"}, loader.Warn, "take 4 of 4 processors"},
		{config.Config{Wait: "busy", Queues: []int{1, 2}}, loader.OK, "2 of 4 processors"},
		{config.Config{Wait: "adaptive"}, loader.OK, "for 50µs"},
		{config.Config{Wait: "adaptive", Spin: time.Millisecond}, loader.OK, "for 1ms"},
		{config.Config{Wait: "interrupt"}, loader.OK, "sleep between frames"},
	} {
		f := waiting(&c.config, facts)
		require.Equal(t, c.severity, f.Severity)
		require.Contains(t, f.What, c.what)
	}
}
