package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/cmd/kitd/internal/caps"
	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/loader"
	"kitnet.dev/kit/stack"
)

// get asks the daemon for a noun.
func get[T any](r *running, noun string) (document T) {
	r.t.Helper()
	body, err := r.client.Get(r.t.Context(), noun, nil)
	require.NoError(r.t, err)
	require.NoError(r.t, json.Unmarshal(body, &document), "%s", body)
	return document
}

func TestStatusSaysHowItIs(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}, "address": {ours}}, nil)
	s := r.status()
	require.Empty(t, s.Degraded)
	require.Positive(t, s.UptimeSeconds)
	s.Started, s.UptimeSeconds, s.PID = time.Time{}, 0, 0
	require.Equal(t, control.Status{
		Version: 1, Kitd: "v0-test", Interface: "mem0", HardwareAddr: "02:00:00:00:00:01", MTU: 1500, Mode: "owned",
		Addresses: []string{"10.0.0.5/24"}, Attach: control.Choice{Asked: "auto", InUse: "native"},
		Copy: control.Choice{Asked: "auto", InUse: "copy"}, TxChecksum: control.Choice{Asked: "auto", InUse: "off"},
		Wait: "interrupt", Queues: []int{3},
		Services: []control.Service{{Name: "udp-echo", Asked: "udp-echo=:7", Addresses: []string{"10.0.0.5:7"}}},
		Rates:    s.Rates, Capabilities: []string{}, NoNewPrivs: true, Degraded: []string{}, Notes: []string{},
	}, s)
	require.Equal(t, "READY=1", <-r.notes)
	r.orderly()
	require.Equal(t, "STOPPING=1", <-r.notes)
	_, err := r.client.Get(t.Context(), "status", nil)
	require.ErrorIs(t, err, control.ErrNotRunning)
}

func TestNounsOfARunningDaemon(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7", "udp-discard=:9"}}, nil)
	d := r.dial(4000)
	r.send(d, 7, "hello")
	require.Equal(t, "hello", r.receive(d))

	sockets := get[control.Sockets](r, "sockets").Sockets
	require.Len(t, sockets, 2)
	for _, s := range sockets {
		if s.Local == "10.0.0.5:7" {
			require.Equal(t, control.Socket{
				ID: s.ID, Proto: "udp", State: "unconnected", Local: "10.0.0.5:7", Interface: "mem0", Handler: true,
				Received: 1, RxBytes: 5, Sent: 1, TxBytes: 5, Accelerated: true,
			}, s)
		}
	}
	body, err := r.client.Get(t.Context(), "sockets", map[string][]string{"filter": {"sport = :9"}})
	require.NoError(t, err)
	require.Contains(t, string(body), `"local":"10.0.0.5:9"`)
	require.NotContains(t, string(body), `"local":"10.0.0.5:7"`)
	_, err = r.client.Get(t.Context(), "sockets", map[string][]string{"filter": {"sport"}})
	require.ErrorContains(t, err, "stands where a comparison such as = or < is due")

	neighbors := get[control.Neighbors](r, "neighbors").Neighbors
	require.Len(t, neighbors, 1)
	require.Equal(t, "10.0.0.9", neighbors[0].Addr)
	require.Equal(t, "02:00:00:00:00:02", neighbors[0].HardwareAddr)

	routes := get[control.Routes](r, "routes").Routes
	require.Contains(t, routes, control.Route{Interface: "lo", Dst: "127.0.0.0/8", Source: "127.0.0.1", Kind: "unicast"})
	require.Equal(t, "10.0.0.0/24", routes[0].Dst)

	queues := get[control.Queues](r, "queues").Queues
	require.Len(t, queues, 1)
	require.Equal(t, 3, queues[0].Queue, "the card's number, not the engine's")
	require.True(t, queues[0].Running)
	require.GreaterOrEqual(t, queues[0].RxFrames, uint64(2), "an ARP request and a datagram")

	stats := map[string]control.Counter{}
	for _, c := range get[control.Stats](r, "stats").Counters {
		require.NotEmpty(t, c.Help, c.Name)
		require.True(t, strings.HasSuffix(c.Help, ".") || strings.HasSuffix(c.Help, ")."), c.Help)
		stats[c.Group+"/"+c.Interface+"/"+c.Name] = c
	}
	require.EqualValues(t, 42, stats["xdp//xsk_udp"].Value)
	require.EqualValues(t, 6, stats["socket/mem0/rx_ring_full"].Value)
	require.EqualValues(t, 1, stats["engine/mem0/delivered"].Value)
	require.Equal(t, 3, *stats["engine/mem0/delivered"].Queue)
	require.Contains(t, stats, "engine/lo/delivered")
	require.Equal(t, "The UDP checksum is wrong.", stats["drop//udp-checksum"].Help)
	require.Contains(t, stats, "drop-tx//no-route")
	r.orderly()
}

// What of the kernel's view can't be followed is told for as long as that is so.
func TestDegradedByTheFollower(t *testing.T) {
	r := start(t, map[string][]string{}, nil)
	require.Empty(t, r.status().Degraded)
	r.card.troubles.Store(&[]error{errors.New("the 65th address does not fit: remove one"), errors.New("the kernel is silent: restart")})
	require.Equal(t, []string{"the 65th address does not fit: remove one", "the kernel is silent: restart"}, r.status().Degraded)
	r.card.troubles.Store(new([]error))
	require.Empty(t, r.status().Degraded)
	require.Empty(t, get[control.Routes](r, "routes").Notes)
	r.card.unfollowed.Store(&[]string{"there are rules"})
	require.Equal(t, []string{"there are rules"}, r.status().Notes)
	require.Equal(t, []string{"there are rules"}, get[control.Routes](r, "routes").Notes)
	require.Empty(t, r.status().Degraded, "a note is no trouble")
	r.orderly()
}

func TestDegraded(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, func(r *running, o *Options) {
		open := o.Open
		o.Open = func(c *config.Config, log *slog.Logger, e Events) (Card, error) {
			card, err := open(c, log, e)
			r.card.info.Attach = loader.AttachGeneric
			r.card.info.Up = false
			r.card.info.Queues[0].CanSend = false
			e.Conflict(netip.MustParseAddr("10.0.0.5"), net.HardwareAddr{2, 0, 0, 0, 0, 9})
			return card, err
		}
		o.Drop = func(caps.Set) (caps.State, error) { return caps.State{}, errors.New("it can't be") }
	})
	require.Equal(t, []string{
		"XDP is generic because driver memory has no native XDP: every frame costs more; accept it with --attach generic",
		"mem0 is down: 'ip link set mem0 up'",
		"queue 3 of mem0 receives but can't send: leave it out with --queues, or use fewer queues (ethtool -L mem0)",
		"kitd runs with more privileges than it needs: it can't be",
		"address 10.0.0.5 is claimed by 02:00:00:00:00:09 too: give one of the two hosts another",
	}, r.status().Degraded)
	r.orderly()
	require.Contains(t, r.log.String(), "XDP is generic because", "said loudly at the start, too")
}

func TestAServiceThatCannotOpenIsAnErrorAtTheStart(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=10.0.0.77:7"}}, nil)
	err := <-r.done
	require.EqualError(t, err, "service udp-echo=10.0.0.77:7 can't be opened at 10.0.0.77:7: cannot assign requested address; "+
		"mem0 has [10.0.0.5/24], or leave the address out for all of them")
}

func TestServicesFollowTheAddresses(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	require.NoError(t, r.card.iface.SetAddresses([]netip.Prefix{netip.MustParsePrefix(ours), netip.MustParsePrefix("10.0.0.6/24")}))
	require.Eventually(t, func() bool {
		return len(r.status().Services[0].Addresses) == 2
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, r.card.iface.SetAddresses([]netip.Prefix{netip.MustParsePrefix("10.0.0.6/24")}))
	require.Eventually(t, func() bool {
		a := r.status().Services[0].Addresses
		return len(a) == 1 && a[0] == "10.0.0.6:7"
	}, 10*time.Second, 10*time.Millisecond)
	r.orderly()
}

func TestReload(t *testing.T) {
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}}, nil)
	require.Equal(t, "READY=1", <-r.notes)
	d := r.dial(4000)
	reload := func(flags map[string][]string, err error) {
		r.next = func() (*config.Config, error) {
			if err != nil {
				return nil, err
			}
			return parse(t, flags), nil
		}
		r.hangup <- struct{}{}
		require.Contains(t, <-r.notes, "RELOADING=1\nMONOTONIC_USEC=")
		require.Equal(t, "READY=1", <-r.notes)
	}
	reload(map[string][]string{"serve": {"udp-echo=:8", "udp-discard=:7"}, "log-level": {"debug"}, "mtu": {"1400"}, "control": {"/elsewhere"}}, nil)
	r.send(d, 8, "now here")
	require.Equal(t, "now here", r.receive(d))
	r.send(d, 7, "not there")
	r.wantSilence(d, 8)
	require.Equal(t, slog.LevelDebug, r.level.Level())
	require.Contains(t, r.log.String(), `a changed option takes a restart of kitd" option=mtu because="the card was opened with the old one"`)
	require.Contains(t, r.log.String(), `option=control`)
	require.Empty(t, r.status().Degraded)

	reload(nil, errors.New("kitd.toml is broken"))
	require.Equal(t, []string{"the last reload failed: kitd.toml is broken"}, r.status().Degraded)
	r.send(d, 8, "still here")
	require.Equal(t, "still here", r.receive(d))

	reload(map[string][]string{"serve": {"udp-echo=10.0.0.77:7"}}, nil)
	require.Len(t, r.status().Degraded, 1)
	require.Contains(t, r.status().Degraded[0], "service udp-echo=10.0.0.77:7 can't be opened")

	reload(map[string][]string{}, nil)
	require.Empty(t, r.status().Degraded)
	require.Empty(t, r.status().Services)
	r.orderly()
}

func TestACardThatIsGoneEndsTheDaemon(t *testing.T) {
	r := start(t, map[string][]string{}, nil)
	r.end.Fail(fmt.Errorf("deleted: %w", unix.ENODEV))
	err := <-r.done
	require.ErrorIs(t, err, unix.ENODEV)
	require.ErrorContains(t, err, "mem0 carries nothing any more")
}

func TestTwoDaemonsOnOneControlSocket(t *testing.T) {
	r := start(t, map[string][]string{}, nil)
	c := parse(t, map[string][]string{"control": {r.path}, "interface": {"mem0"}})
	err := Run(t.Context(), Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "belongs to a kitd that runs: stop it, or use another --control")
	r.orderly()
}

func TestWatchdog(t *testing.T) {
	r := start(t, map[string][]string{}, func(_ *running, o *Options) { o.Watchdog = 20 * time.Millisecond })
	require.Equal(t, "READY=1", <-r.notes)
	require.Equal(t, "WATCHDOG=1", <-r.notes)
	r.orderly()
}

func TestMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	r := start(t, map[string][]string{"serve": {"udp-echo=:7"}, "metrics": {address}}, nil)
	d := r.dial(4000)
	r.send(d, 7, "hello")
	require.Equal(t, "hello", r.receive(d))
	r.send(d, 6, "nobody is there")

	var text string
	require.Eventually(t, func() bool {
		_, text = fetch(t, "http://"+address+"/metrics")
		return strings.Contains(text, `kit_drops_total{reason="udp-no-port"} 1`)
	}, 10*time.Second, 10*time.Millisecond, "the drop is counted")
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		require.Regexp(t, `^(# HELP kit_\w+ \S.*|# TYPE kit_\w+ (counter|gauge)|kit_\w+(\{(\w+="[^"]*",?)+\})? [0-9.e+]+)$`, line)
	}
	require.Regexp(t, `# HELP kit_drops_total .*udp-no-port: No socket is bound to the destination port\.`, text)
	require.Contains(t, text, "\nkit_degraded 0\n")
	require.Contains(t, text, `kit_engine_delivered_total{interface="mem0",queue="3"} 1`)
	require.Contains(t, text, `kit_xdp_frames_total{reason="xsk_udp",verdict="xsk"} 42`)
	require.Contains(t, text, `kit_socket_rx_ring_full_total{interface="mem0",queue="3"} 6`)
	require.Contains(t, text, `kit_engine_held{interface="mem0",queue="3"} 0`)
	require.Contains(t, text, `kit_info{attach="native",copy="copy",interface="mem0",mode="owned",version="v0-test"} 1`)
	require.Equal(t, len(stack.DropReasons()), strings.Count(text, "\nkit_drops_total{"))

	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n"} {
		code, body := fetch(t, "http://"+address+path)
		require.Equal(t, 200, code, path)
		require.Equal(t, want, body, path)
	}
	r.orderly()
}

// sick is a health that is not.
type sick struct{}

func (sick) Alive() bool   { return false }
func (sick) Serving() bool { return false }

func TestProbesSayNo(t *testing.T) {
	server := newMetricsServer(nil, sick{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	code, body := fetch(t, "http://"+l.Addr().String()+"/healthz")
	require.Equal(t, 503, code)
	require.Equal(t, "an engine does not answer\n", body)
	code, body = fetch(t, "http://"+l.Addr().String()+"/readyz")
	require.Equal(t, 503, code)
	require.Equal(t, "kitd is not serving\n", body)
}

func TestMetricsPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	r := start(t, map[string][]string{"metrics": {l.Addr().String()}}, nil)
	err = <-r.done
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.ErrorContains(t, err, "use another --metrics")
	require.NoFileExists(t, r.path)
}
