package cli

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kitnet.dev/kit/cmd/kitd/internal/control"
)

func (e *Env) statsCommand() *cobra.Command {
	var all bool
	var watch time.Duration
	cmd := &cobra.Command{
		Use: "stats", Short: "every counter, and why packets were dropped", Args: noArgs,
		Long: "Counters of the XDP program, the AF_XDP sockets, the engines, and the packets that were dropped, by reason.\n" +
			"The table leaves out those that are zero; json and jsonl have them all.",
	}
	output, path := outputFlag(cmd), controlFlag(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "counters that are zero, too")
	cmd.Flags().DurationVarP(&watch, "watch", "w", 0, "print again and again, every second or `DURATION`, with rates")
	cmd.Flags().Lookup("watch").NoOptDefVal = "1s"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		watched := cmd.Flags().Changed("watch")
		switch {
		case watched && watch < 100*time.Millisecond:
			return usagef("--watch %v is too often: use 100ms or more", watch)
		case watched && *output == asJSON:
			return usagef("--watch prints one document after the other: use -o jsonl, whose lines stand alone")
		}
		ctx, stop := interruptible(cmd)
		defer stop()
		w := watcher{env: e, output: *output, all: all}
		for {
			raw, err := client(*path).Get(ctx, "stats", nil)
			if err == nil {
				err = w.show(raw, watched)
			}
			if ctx.Err() != nil {
				return nil
			}
			if err != nil || !watched {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(watch):
			}
		}
	}
	return cmd
}

// watcher prints counters, with rates from the second time on.
type watcher struct {
	env    *Env
	output format
	all    bool
	last   map[string]uint64
	at     time.Time
}

func (w *watcher) show(raw []byte, watched bool) error {
	if w.output != asTable {
		return document{raw: raw, rows: "counters"}.print(w.env.Stdout, w.output)
	}
	d, err := decode[control.Stats](raw)
	if err != nil {
		return err
	}
	if watched && w.env.Terminal {
		if _, err := io.WriteString(w.env.Stdout, home); err != nil {
			return err
		}
	}
	now, values := time.Now(), map[string]uint64{}
	t := newTable("GROUP", "INTERFACE", "QUEUE", "COUNTER", "VALUE", "PER-SECOND", "MEANING")
	if !watched {
		t = newTable("GROUP", "INTERFACE", "QUEUE", "COUNTER", "VALUE", "MEANING")
	}
	zeros := 0
	for _, c := range d.Counters {
		if c.Value == 0 && !w.all {
			zeros++
			continue
		}
		queue := ""
		if c.Queue != nil {
			queue = strconv.Itoa(*c.Queue)
		}
		row := []any{c.Group, c.Interface, queue, c.Name, c.Value}
		if watched {
			key := c.Group + " " + c.Interface + " " + queue + " " + c.Name
			values[key] = c.Value
			row = append(row, w.rate(&c, key, now))
		}
		t.add(append(row, c.Help)...)
	}
	w.last, w.at = values, now
	if err := t.print(w.env.Stdout); err != nil {
		return err
	}
	if zeros > 0 && !watched {
		fmt.Fprintf(w.env.Stderr, "counters that are zero and left out: %d; --all shows them\n", zeros)
	}
	return nil
}

// rate is how fast a counter grew since the last time, "" where that means
// nothing.
func (w *watcher) rate(c *control.Counter, key string, now time.Time) string {
	if w.last == nil || c.Gauge {
		return ""
	}
	return strconv.FormatFloat(float64(c.Value-w.last[key])/now.Sub(w.at).Seconds(), 'f', 0, 64)
}
