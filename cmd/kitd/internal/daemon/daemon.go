package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kitnet.dev/kit/cmd/kitd/internal/caps"
	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/stack"
)

// Options are what a daemon is given.
type Options struct {
	Config *config.Config
	// Reload reads the configuration anew.
	Reload  func() (*config.Config, error)
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log
	Version string         // of kitd

	// Open opens the card.
	Open func(*config.Config, *slog.Logger, Events) (Card, error)
	// Drop gives up capabilities but these.
	Drop func(keep caps.Set) (caps.State, error)
	// Notify tells the service manager (sd_notify(3)).
	Notify func(state string)
	// Watchdog is how often the service manager wants to hear that kitd lives; 0:
	// never.
	Watchdog time.Duration
	// Ready is called when everything serves.
	Ready func()
	// Hangup receives when the configuration is to be read anew.
	Hangup <-chan struct{}
}

// Daemon is a running kitd.
type Daemon struct {
	options  Options
	log      *slog.Logger
	started  time.Time
	card     Card
	queues   []int // the card's queues, by engine
	services *services
	tap      tap
	troubles troubles
	caps     caps.State
	config   atomic.Pointer[config.Config] // in force

	rates   atomic.Pointer[control.Rates]
	sampled atomic.Int64 // when the engines last answered, in nanoseconds since started
	serving atomic.Bool
	gone    chan error // the card failed for good
	// conflicts are sentences to be logged.
	conflicts chan string
}

// Run holds the card and serves until ctx ends, which is an orderly stop and no
// error, or until the card is gone.
func Run(ctx context.Context, o Options) error {
	d := &Daemon{options: o, log: o.Log, started: time.Now(), gone: make(chan error, 1), conflicts: make(chan string, 16)}
	d.config.Store(o.Config)
	d.rates.Store(new(control.Rates))
	listener, err := control.Listen(o.Config.Control)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := d.open(); err != nil {
		return err
	}
	defer d.close()
	metrics, err := d.listenMetrics()
	if err != nil {
		return err
	}
	d.drop()
	return d.serve(ctx, listener, metrics)
}

// open opens the card and the services on it.
func (d *Daemon) open() (err error) {
	events := Events{
		Conflict: d.conflict,
		Gone: func(err error) {
			select {
			case d.gone <- err:
			default: // another queue said so already
			}
		},
	}
	if d.card, err = d.options.Open(d.config.Load(), d.log, events); err != nil {
		return err
	}
	for _, q := range d.card.Info().Queues {
		d.queues = append(d.queues, q.Queue)
	}
	d.tap = tap{stack: d.card.Stack(), number: d.queueNumber}
	d.services = newServices(d.card.Stack(), d.card.Interface(), d.log)
	if err := d.services.set(d.config.Load().Services); err != nil {
		return errors.Join(err, d.card.Close())
	}
	return nil
}

// close gives the card back. Services end first, so that their ports are the
// kernel's again.
func (d *Daemon) close() {
	d.services.close()
	if err := d.card.Close(); err != nil {
		d.log.Error("the card was not closed cleanly", "error", err)
	}
	d.log.Info("stopped", "interface", d.config.Load().Interface)
}

// listenMetrics opens the port of --metrics on the kernel's stack; nil without.
func (d *Daemon) listenMetrics() (net.Listener, error) {
	if d.config.Load().Metrics == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", d.config.Load().Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics can't be served at %s: %w; use another --metrics", d.config.Load().Metrics, err)
	}
	return l, nil
}

// drop gives up what starting needed and serving does not.
func (d *Daemon) drop() {
	var err error
	keep := caps.Keep(d.card.Interface().Mode() == stack.Shared, caps.ThisKernel())
	if d.caps, err = d.options.Drop(keep); err != nil {
		d.troubles.set("capabilities", fmt.Sprintf("kitd runs with more privileges than it needs: %v", err), time.Time{})
		return
	}
	d.log.Info("capabilities dropped", "left", d.caps.Permitted.String(), "no_new_privs", d.caps.NoNewPrivs)
}

// serve answers until there is a reason to stop.
func (d *Daemon) serve(ctx context.Context, listener *control.Listener, metrics net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 3)
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		d.sample(ctx)
	}()
	defer func() { <-sampled }()
	defer cancel() // before the wait above

	server := control.NewServer(d)
	go func() { failed <- server.Serve(listener) }()
	defer server.Close()
	if metrics != nil {
		web := newMetricsServer(d, d)
		go func() {
			if err := web.Serve(metrics); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
		defer web.Close()
		d.log.Info("metrics", "at", "http://"+metrics.Addr().String()+"/metrics")
	}

	d.serving.Store(true)
	defer d.serving.Store(false)
	d.announce()
	err := d.wait(ctx, failed)
	d.options.Notify("STOPPING=1")
	return err
}

// announce says that kitd serves, and how.
func (d *Daemon) announce() {
	s := d.Status()
	d.log.Info("serving", "interface", s.Interface, "mode", s.Mode, "addresses", s.Addresses,
		"attach", s.Attach.InUse, "copy", s.Copy.InUse, "queues", s.Queues, "wait", s.Wait, "control", d.config.Load().Control)
	for _, sentence := range s.Degraded {
		d.log.Warn(sentence)
	}
	d.options.Ready()
	d.options.Notify("READY=1")
}

// wait handles what happens while kitd serves.
func (d *Daemon) wait(ctx context.Context, failed <-chan error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var watchdog <-chan time.Time
	if d.options.Watchdog > 0 {
		t := time.NewTicker(d.options.Watchdog / 2)
		defer t.Stop()
		watchdog = t.C
	}
	for {
		select {
		case <-ctx.Done():
			d.log.Info("stopping")
			return nil
		case err := <-d.gone:
			return fmt.Errorf("%s carries nothing any more: %w; start kitd again when the card is back", d.config.Load().Interface, err)
		case err := <-failed:
			return fmt.Errorf("kitd can't be asked any more: %w", err)
		case sentence := <-d.conflicts:
			d.log.Warn(sentence)
		case <-d.options.Hangup:
			d.reload()
		case <-tick.C:
			d.services.follow()
		case <-watchdog:
			if d.Alive() {
				d.options.Notify("WATCHDOG=1")
			}
		}
	}
}

// reload takes over what can change while kitd runs, and says what can't.
func (d *Daemon) reload() {
	d.options.Notify("RELOADING=1\nMONOTONIC_USEC=" + monotonicMicros())
	defer d.options.Notify("READY=1")
	next, err := d.options.Reload()
	if err != nil {
		d.log.Error("the configuration was not reloaded", "error", err)
		d.troubles.set("reload", fmt.Sprintf("the last reload failed: %v", err), time.Time{})
		return
	}
	d.troubles.clear("reload")
	live, restart := config.Changes(d.config.Load(), next)
	for _, o := range restart {
		d.log.Warn("a changed option takes a restart of kitd", "option", o.Name, "because", o.Why)
	}
	d.config.Store(d.config.Load().Adopt(next))
	d.options.Level.Set(next.LogLevel)
	_ = d.services.set(next.Services) // what fails is logged and in degraded, and tried again
	d.log.Info("configuration reloaded", "taken_over", live)
}

// monotonicMicros is the time that sd_notify(3) wants with RELOADING=1.
func monotonicMicros() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // can't fail for this clock
	return strconv.FormatInt(now.Nano()/1000, 10)
}

// alivePeriod is how long the engines may be silent.
const alivePeriod = 5 * time.Second

// Alive implements health.
func (d *Daemon) Alive() bool {
	return time.Since(d.started)-time.Duration(d.sampled.Load()) < alivePeriod
}

// Serving implements health.
func (d *Daemon) Serving() bool { return d.serving.Load() }

// sample asks the engines for their counters every second, for the rates and to
// see that they live.
func (d *Daemon) sample(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last, lastAt := d.card.Stack().Stats(), time.Now()
	d.sampled.Store(int64(time.Since(d.started)))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		next, at := d.card.Stack().Stats(), time.Now()
		d.sampled.Store(int64(time.Since(d.started)))
		per := func(a, b uint64) uint64 { return uint64(float64(b-a)/at.Sub(lastAt).Seconds() + 0.5) }
		d.rates.Store(&control.Rates{
			RxPackets: per(last.RxFrames, next.RxFrames), RxBytes: per(last.RxBytes, next.RxBytes),
			TxPackets: per(last.TxFrames, next.TxFrames), TxBytes: per(last.TxBytes, next.TxBytes),
			Drops: per(drops(&last), drops(&next)),
		})
		last, lastAt = next, at
	}
}
