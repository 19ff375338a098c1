package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/cmd/kitd/internal/caps"
	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/kernel"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
	"kitnet.dev/kit/stack/linktest"
	"kitnet.dev/kit/stack/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ours  = "10.0.0.5/24"
	peers = "10.0.0.9/24"
)

// memoryCard is a stack on one end of a wire in memory, as a daemon sees a card.
type memoryCard struct {
	stack *stack.Stack
	iface *stack.Interface
	info  loader.Info

	troubles   atomic.Pointer[[]error] // of a follower
	unfollowed atomic.Pointer[[]string]
}

func (c *memoryCard) Stack() *stack.Stack          { return c.stack }
func (c *memoryCard) Net() *socketapi.Net          { return socketapi.NewNet(c.stack) }
func (c *memoryCard) Interface() *stack.Interface  { return c.iface }
func (c *memoryCard) Info() loader.Info            { return c.info }
func (c *memoryCard) XDPStats() (bpf.Stats, error) { return bpf.Stats{bpf.XSKUDP: 42}, nil }
func (c *memoryCard) SocketStats() ([]loader.QueueStats, error) {
	return []loader.QueueStats{{Queue: 3, RxRingFull: 6}}, nil
}
func (c *memoryCard) LinkCounters() []loader.Counters     { return make([]loader.Counters, 1) }
func (c *memoryCard) FollowerStats() kernel.FollowerStats { return kernel.FollowerStats{} }
func (c *memoryCard) FollowerTroubles() []error           { return *c.troubles.Load() }
func (c *memoryCard) Unfollowed() []string                { return *c.unfollowed.Load() }
func (c *memoryCard) Close() error                        { return c.stack.Close() }

// newStack puts a stack on an end of a wire.
func newStack(t *testing.T, end *linktest.End, name, address string, gone func(error)) *memoryCard {
	t.Helper()
	s := stack.New(stack.Config{Seed: 1})
	i, err := s.AddInterface(stack.InterfaceConfig{
		Name: name, Links: []stack.Link{end}, Mode: stack.Owned,
		Addresses: []netip.Prefix{netip.MustParsePrefix(address)}, Wait: stack.Interrupt, OnError: gone,
	})
	require.NoError(t, err)
	s.Start()
	card := &memoryCard{stack: s, iface: i, info: loader.Info{
		Interface: name, Present: true, Up: true, Running: true, Driver: "memory", Attach: loader.AttachNative,
		Queues: []loader.QueueInfo{{Queue: 3, Copy: loader.CopyAlways, CanSend: true}},
	}}
	card.troubles.Store(new([]error))
	card.unfollowed.Store(new([]string))
	return card
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a daemon under test, with a peer on the other end of its wire.
type running struct {
	t      *testing.T
	peer   *memoryCard
	end    *linktest.End // the daemon's
	card   *memoryCard
	log    *logBuffer
	level  *slog.LevelVar
	notes  chan string
	hangup chan struct{}
	path   string // of the control socket
	client *control.Client
	done   chan error
	stop   context.CancelFunc
	// next is what a reload reads.
	next func() (*config.Config, error)
}

// parse makes a configuration of flags.
func parse(t *testing.T, flags map[string][]string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Sources{Flags: flags})
	require.NoError(t, err)
	return c
}

// start runs a daemon until the test ends. change may alter its options.
func start(t *testing.T, flags map[string][]string, change func(*running, *Options)) *running {
	t.Helper()
	wire := linktest.New(linktest.Config{RealTime: true})
	r := &running{
		t: t, end: wire.End(0), peer: newStack(t, wire.End(1), "peer0", peers, nil), log: &logBuffer{}, level: new(slog.LevelVar),
		notes: make(chan string, 100), hangup: make(chan struct{}), done: make(chan error, 1),
	}
	path := filepath.Join(t.TempDir(), "c.sock")
	flags["control"], flags["interface"] = []string{path}, []string{"mem0"}
	ready := make(chan struct{})
	o := Options{
		Config: parse(t, flags),
		Reload: func() (*config.Config, error) { return r.next() },
		Log:    slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: r.level})), Level: r.level, Version: "v0-test",
		Open: func(_ *config.Config, _ *slog.Logger, e Events) (Card, error) {
			r.card = newStack(t, r.end, "mem0", ours, e.Gone)
			return r.card, nil
		},
		Drop:   func(keep caps.Set) (caps.State, error) { return caps.State{Permitted: keep, NoNewPrivs: true}, nil },
		Notify: func(state string) { r.notes <- state },
		Ready:  func() { close(ready) }, Hangup: r.hangup,
	}
	if change != nil {
		change(r, &o)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop, r.path, r.client = stop, path, control.NewClient(path)
	go func() { r.done <- Run(ctx, o) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, r.peer.Close())
	})
	select {
	case <-ready:
	case err := <-r.done:
		r.done <- err
	}
	return r
}

// orderly stops the daemon and wants an orderly end.
func (r *running) orderly() {
	r.t.Helper()
	r.stop()
	require.NoError(r.t, <-r.done)
}

// dial makes a socket of the peer, on a port; 0 is any.
func (r *running) dial(port uint16) *stack.Datagram {
	r.t.Helper()
	d := r.peer.stack.NewDatagram(wire.ProtocolUDP)
	require.NoError(r.t, d.Bind(netip.AddrPortFrom(netip.MustParsePrefix(peers).Addr(), port)))
	return d
}

func to(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParsePrefix(ours).Addr(), port)
}

func (r *running) send(d *stack.Datagram, port uint16, text string) {
	r.t.Helper()
	_, err := d.Write([]stack.Message{{Buf: []byte(text), Addr: to(port)}})
	require.NoError(r.t, err)
}

// receive waits for one datagram.
func (r *running) receive(d *stack.Datagram) string {
	r.t.Helper()
	m := []stack.Message{{Buf: make([]byte, 2000)}}
	w := stack.NewWaiter()
	d.Watch(w, stack.Readable)
	defer d.Unwatch(w)
	deadline := time.After(10 * time.Second)
	for {
		if n, err := d.Read(m); n == 1 {
			return string(m[0].Buf[:m[0].N])
		} else {
			require.ErrorIs(r.t, err, syscall.EAGAIN)
		}
		select {
		case <-w.C:
		case <-deadline:
			require.Fail(r.t, "no datagram came")
		}
	}
}

// wantSilence wants nothing to read on d, after an echo on another socket has
// shown that the daemon has seen all that was sent before.
func (r *running) wantSilence(d *stack.Datagram, echo uint16) {
	r.t.Helper()
	probe := r.dial(0)
	defer probe.Close()
	r.send(probe, echo, "probe")
	require.Equal(r.t, "probe", r.receive(probe))
	n, err := d.Read([]stack.Message{{Buf: make([]byte, 2000)}})
	require.Zero(r.t, n)
	require.ErrorIs(r.t, err, syscall.EAGAIN)
}

func (r *running) status() control.Status {
	r.t.Helper()
	return get[control.Status](r, "status")
}

// fetch reads a URL's status and body.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	http.DefaultClient.CloseIdleConnections()
	return response.StatusCode, string(body)
}
