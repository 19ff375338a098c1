package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/cmd/kitd/internal/sockfilter"
)

// noun is a command that prints one document of a running kitd.
type noun struct {
	name  string
	short string
	rows  string
	table func(out io.Writer, raw []byte) error
}

func (e *Env) nounCommands() []*cobra.Command {
	nouns := []noun{
		{"neighbors", "hosts that the card reaches directly", "neighbors", neighborsTable},
		{"routes", "routes in use", "routes", routesTable},
		{"queues", "queues of the card and their engines", "queues", queuesTable},
	}
	commands := []*cobra.Command{e.statusCommand(), e.statsCommand(), e.socketsCommand()}
	for _, n := range nouns {
		cmd := &cobra.Command{Use: n.name, Short: n.short, Args: noArgs}
		output, path := outputFlag(cmd), controlFlag(cmd)
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			raw, err := client(*path).Get(cmd.Context(), n.name, nil)
			if err != nil {
				return err
			}
			return e.show(raw, *output, n.rows, n.table)
		}
		commands = append(commands, cmd)
	}
	for _, c := range commands {
		c.GroupID = "nouns"
	}
	return commands
}

// show prints a document in the form asked for.
func (e *Env) show(raw []byte, f format, rows string, table func(io.Writer, []byte) error) error {
	if f == asTable {
		return table(e.Stdout, raw)
	}
	return document{raw: raw, rows: rows}.print(e.Stdout, f)
}

func controlFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("control", "", "control `PATH` of the kitd to ask (default "+config.DefaultControl+
		", or the only one in "+filepath.Dir(control.UnitSockets)+")")
}

// client makes a client for a path, or for where a kitd is without one.
func client(path string) *control.Client {
	if path == "" {
		path = config.DefaultControl
		if _, err := os.Lstat(path); err != nil {
			if units, _ := filepath.Glob(control.UnitSockets); len(units) == 1 {
				path = units[0]
			}
		}
	}
	return control.NewClient(path)
}

// decode reads a document of this version of kitd.
func decode[T any](raw []byte) (document T, err error) {
	if err = json.Unmarshal(raw, &document); err != nil {
		err = fmt.Errorf("kitd's answer can't be read: %w; are kitd and this command of one version?", err)
	}
	return document, err
}

func (e *Env) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "how a running kitd is; exit status 3 when it is not as it was asked for", Args: noArgs,
	}
	output, path := outputFlag(cmd), controlFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		raw, err := client(*path).Get(cmd.Context(), "status", nil)
		if err != nil {
			return err
		}
		status, err := decode[control.Status](raw)
		if err != nil {
			return err
		}
		if err := e.show(raw, *output, "", statusTable); err != nil {
			return err
		}
		if len(status.Degraded) > 0 {
			return statusError(exitDegraded)
		}
		return nil
	}
	return cmd
}

func statusTable(out io.Writer, raw []byte) error {
	s, err := decode[control.Status](raw)
	if err != nil {
		return err
	}
	t := &table{}
	state := "serving"
	if len(s.Degraded) > 0 {
		state = "degraded"
	}
	uptime := time.Duration(s.UptimeSeconds) * time.Second
	t.add("kitd", fmt.Sprintf("%s, pid %d, up %s, %s", s.Kitd, s.PID, uptime, state))
	t.add("card", fmt.Sprintf("%s, %s, mtu %d", s.Interface, s.HardwareAddr, s.MTU))
	t.add("addresses", fmt.Sprintf("%s, %s", strings.Join(s.Addresses, " "), s.Mode))
	if s.Gateway != "" {
		t.add("gateway", s.Gateway)
	}
	t.add("attach", choice(s.Attach))
	t.add("copy", choice(s.Copy))
	t.add("tx checksum", choice(s.TxChecksum))
	t.add("wait", s.Wait)
	t.add("queues", strings.Trim(fmt.Sprint(s.Queues), "[]"))
	t.add("received", fmt.Sprintf("%d packets/s, %d bytes/s", s.Rates.RxPackets, s.Rates.RxBytes))
	t.add("sent", fmt.Sprintf("%d packets/s, %d bytes/s", s.Rates.TxPackets, s.Rates.TxBytes))
	t.add("dropped", fmt.Sprintf("%d packets/s", s.Rates.Drops))
	for _, v := range s.Services {
		at := strings.Join(v.Addresses, " ")
		if at == "" {
			at = "nowhere"
		}
		t.add("service", v.Name+" at "+at)
	}
	privileges := strings.Join(s.Capabilities, " ")
	if privileges == "" {
		privileges = "no capabilities"
	}
	if s.NoNewPrivs {
		privileges += ", no_new_privs"
	}
	t.add("privileges", privileges)
	for _, sentence := range s.Notes {
		t.add("note", sentence)
	}
	for _, sentence := range s.Degraded {
		t.add("degraded", sentence)
	}
	return t.lines(out)
}

// choice says what is in use, and what was asked for where that is another word.
func choice(c control.Choice) string {
	if c.Asked == c.InUse {
		return c.InUse
	}
	return c.InUse + ", asked for " + c.Asked
}

func (e *Env) socketsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sockets [FILTER]", Short: "sockets of the stack; FILTER as in ss",
		Long: "Sockets of the stack that FILTER wants, all without one, and those of the kernel that do for one of the stack\n" +
			"(--fallback), whose last column says why. FILTER is ss's language:\n\n" +
			"  src, dst ADDRESS         10.0.0.1, 10.0.0.0/8, 10.0.0.1:7, :7\n" +
			"  sport, dport OP PORT     = != < <= > >=; :7, 7 or a name\n" +
			"  state STATE              established, listening, unconnected, time-wait and TCP's others, all\n" +
			"  dev = NAME, tcp, udp, icmp   joined by and, or, not and parentheses",
		Example: "  kitd sockets 'sport = :7'\n  kitd sockets udp and not src 127.0.0.0/8",
	}
	output, path := outputFlag(cmd), controlFlag(cmd)
	info := cmd.Flags().BoolP("info", "i", false, "in the table, show each connection's TCP figures")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filter := strings.Join(args, " ")
		if _, err := sockfilter.Compile(filter); err != nil {
			return usageError{err}
		}
		query := url.Values{}
		if filter != "" {
			query.Set("filter", filter)
		}
		raw, err := client(*path).Get(cmd.Context(), "sockets", query)
		if err != nil {
			return err
		}
		table := socketsTable
		if *info {
			table = tcpTable
		}
		return e.show(raw, *output, "sockets", table)
	}
	return cmd
}

func socketsTable(out io.Writer, raw []byte) error {
	d, err := decode[control.Sockets](raw)
	if err != nil {
		return err
	}
	t := newTable("ID", "PROTO", "STATE", "LOCAL", "REMOTE", "INTERFACE", "READER", "READ-Q", "WRITE-Q", "RECEIVED", "SENT", "DROPPED", "ACCELERATED")
	for _, s := range d.Sockets {
		reader := "socket"
		if s.Handler {
			reader = "handler"
		}
		t.add(s.ID, s.Proto, s.State, s.Local, s.Remote, s.Interface, reader, s.ReadQueue, s.WriteQueue, s.Received, s.Sent, s.Dropped, accelerated(&s))
	}
	return t.print(out)
}

// accelerated says whether a socket's packets go by kit, and why not.
func accelerated(s *control.Socket) string {
	if s.Accelerated {
		return "yes"
	}
	return "no: " + s.Reason
}

// tcpTable is the table of sockets with TCP's figures.
func tcpTable(out io.Writer, raw []byte) error {
	d, err := decode[control.Sockets](raw)
	if err != nil {
		return err
	}
	t := newTable("ID", "STATE", "LOCAL", "REMOTE", "READ-Q", "WRITE-Q", "SRTT", "RTTVAR", "RTO", "MSS", "CWND", "SSTHRESH", "IN-FLIGHT",
		"RETRANS", "DELIVERED", "RECEIVED", "PACING", "CONGESTION", "ACCELERATED")
	for _, s := range d.Sockets {
		c := s.TCP
		if c == nil {
			continue
		}
		ssthresh, pacing := "-", "-"
		if c.Ssthresh > 0 {
			ssthresh = fmt.Sprint(c.Ssthresh)
		}
		if c.PacingRate > 0 {
			pacing = fmt.Sprintf("%d B/s", c.PacingRate)
		}
		micros := func(n int64) string { return (time.Duration(n) * time.Microsecond).String() }
		t.add(s.ID, s.State, s.Local, s.Remote, s.ReadQueue, s.WriteQueue, micros(c.SRTTMicros), micros(c.RTTVarMicros), micros(c.RTOMicros),
			c.MSS, c.Cwnd, ssthresh, c.InFlight, c.Retransmitted, c.Delivered, c.Received, pacing, c.Congestion+", "+c.CongestionState, accelerated(&s))
	}
	return t.print(out)
}

func neighborsTable(out io.Writer, raw []byte) error {
	d, err := decode[control.Neighbors](raw)
	if err != nil {
		return err
	}
	t := newTable("ADDRESS", "INTERFACE", "HARDWARE-ADDRESS", "STATE", "QUEUED", "AGE")
	for _, n := range d.Neighbors {
		age := ""
		if n.AgeSeconds > 0 { // the kernel's entries have none
			age = time.Duration(n.AgeSeconds * float64(time.Second)).Round(time.Second).String()
		}
		t.add(n.Addr, n.Interface, n.HardwareAddr, n.State, n.Queued, age)
	}
	return t.print(out)
}

func routesTable(out io.Writer, raw []byte) error {
	d, err := decode[control.Routes](raw)
	if err != nil {
		return err
	}
	t := newTable("DESTINATION", "INTERFACE", "GATEWAY", "SOURCE", "METRIC", "MTU", "KIND")
	for _, r := range d.Routes {
		mtu := ""
		if r.MTU > 0 {
			mtu = fmt.Sprint(r.MTU)
		}
		t.add(r.Dst, r.Interface, r.Gateway, r.Source, r.Metric, mtu, r.Kind)
	}
	if err := t.print(out); err != nil || len(d.Notes) == 0 {
		return err
	}
	fmt.Fprintln(out)
	notes := &table{}
	for _, sentence := range d.Notes {
		notes.add("note", sentence)
	}
	return notes.lines(out)
}

func queuesTable(out io.Writer, raw []byte) error {
	d, err := decode[control.Queues](raw)
	if err != nil {
		return err
	}
	t := newTable("QUEUE", "INTERFACE", "ENGINE", "SOCKETS", "RX-FRAMES", "RX-BYTES", "TX-FRAMES", "TX-BYTES", "DELIVERED", "ANSWERED", "DROPS")
	for _, q := range d.Queues {
		engine := "stopped"
		switch {
		case q.Running && q.Sleeping:
			engine = "sleeps"
		case q.Running:
			engine = "runs"
		}
		t.add(q.Queue, q.Interface, engine, q.Sockets, q.RxFrames, q.RxBytes, q.TxFrames, q.TxBytes, q.Delivered, q.Answered, q.Drops)
	}
	return t.print(out)
}
