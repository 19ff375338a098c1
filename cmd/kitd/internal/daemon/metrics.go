package daemon

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/stack"
)

// labelled are the groups whose counters are one metric each, told apart by a
// label; those of other groups are metrics of their own by interface and queue.
var labelled = map[string]*prometheus.Desc{
	groupXDP: prometheus.NewDesc("kit_xdp_frames_total",
		"Frames that the XDP program saw, by verdict (xsk: to kit; pass: left to the kernel) and reason. "+xdpReasons(),
		[]string{"verdict", "reason"}, nil),
	groupDrop: prometheus.NewDesc("kit_drops_total",
		"Received packets that were dropped, by reason. "+dropReasons(), []string{"reason"}, nil),
	groupDropTx: prometheus.NewDesc("kit_tx_drops_total",
		"Packets made here that were dropped, by reason. "+dropReasons(), []string{"reason"}, nil),
}

// dropReasons explains every reason in one line.
func dropReasons() string {
	var b strings.Builder
	for _, r := range stack.DropReasons() {
		b.WriteString(r.String() + ": " + r.Doc() + " ")
	}
	return strings.TrimSpace(b.String())
}

func xdpReasons() string {
	var b strings.Builder
	for r := range bpf.Reason(bpf.Reasons) {
		b.WriteString(r.String() + ": " + r.Help() + ". ")
	}
	return strings.TrimSpace(b.String())
}

var (
	degradedDesc = prometheus.NewDesc("kit_degraded", "How many things are not as they were asked for; kitd status names them.", nil, nil)
	infoDesc     = prometheus.NewDesc("kit_info", "What this kitd is, 1.", []string{"version", "interface", "mode", "attach", "copy"}, nil)
	startedDesc  = prometheus.NewDesc("kit_start_time_seconds", "When this kitd started, in seconds since 1970.", nil, nil)
)

// collector makes metrics of the counters. It reads them once a scrape.
type collector struct{ source control.Source }

// Describe is empty: which metrics there are is known when they are collected
// (prometheus calls that an unchecked collector).
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads and sends all.
func (c collector) Collect(out chan<- prometheus.Metric) {
	status := c.source.Status()
	out <- prometheus.MustNewConstMetric(degradedDesc, prometheus.GaugeValue, float64(len(status.Degraded)))
	out <- prometheus.MustNewConstMetric(infoDesc, prometheus.GaugeValue, 1,
		status.Kitd, status.Interface, status.Mode, status.Attach.InUse, status.Copy.InUse)
	out <- prometheus.MustNewConstMetric(startedDesc, prometheus.GaugeValue, float64(status.Started.UnixNano())/1e9)
	for _, counter := range c.source.Stats().Counters {
		out <- metric(&counter)
	}
}

// metric makes one of a counter.
func metric(c *control.Counter) prometheus.Metric {
	value := float64(c.Value)
	if desc := labelled[c.Group]; desc != nil {
		if c.Group == groupXDP {
			verdict, _, _ := strings.Cut(c.Name, "_")
			return prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, verdict, c.Name)
		}
		return prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, c.Name)
	}
	name, kind := "kit_"+c.Group+"_"+c.Name, prometheus.GaugeValue
	if !c.Gauge {
		name, kind = name+"_total", prometheus.CounterValue
	}
	if c.Queue == nil {
		return prometheus.MustNewConstMetric(prometheus.NewDesc(name, c.Help, nil, nil), kind, value)
	}
	desc := prometheus.NewDesc(name, c.Help, []string{"interface", "queue"}, nil)
	return prometheus.MustNewConstMetric(desc, kind, value, c.Interface, strconv.Itoa(*c.Queue))
}

// health answers /healthz and /readyz.
type health interface {
	// Alive: the engines answer.
	Alive() bool
	// Serving: kitd has started and is not stopping.
	Serving() bool
}

// newMetricsServer serves /metrics, /healthz and /readyz over HTTP.
func newMetricsServer(source control.Source, h health) *http.Server {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{source})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	probe := func(ok func() bool, bad string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if !ok() {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(bad + "\n"))
				return
			}
			_, _ = w.Write([]byte("ok\n"))
		}
	}
	mux.Handle("GET /healthz", probe(h.Alive, "an engine does not answer"))
	mux.Handle("GET /readyz", probe(h.Serving, "kitd is not serving"))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}
