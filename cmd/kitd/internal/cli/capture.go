package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/cmd/kitd/internal/pcapfilter"
)

func (e *Env) captureCommand() *cobra.Command {
	var file string
	var count uint64
	var drops bool
	cmd := &cobra.Command{
		Use: "capture [-w FILE|-] [-c N] [--drops] [FILTER]", Short: "packets of both directions; FILTER as in tcpdump",
		Long: "Shows the packets that kit gets and sends, a line each, or writes them as pcapng with direction and drop\n" +
			"reason. What the XDP program leaves to the kernel is not among them: tcpdump shows that.\n\n" +
			"FILTER is tcpdump's language (pcap-filter(7)): host, net, port, portrange, proto, vlan, ether, less, greater,\n" +
			"udp[8:2] = 5, and, or, not. Names of hosts are not looked up.",
		Example: "  kitd capture udp port 7\n  kitd capture -w - not arp | tcpdump -n -r -\n  kitd capture --drops -c 10",
	}
	path := controlFlag(cmd)
	cmd.Flags().StringVarP(&file, "write", "w", "", "write pcapng to `FILE`, - is stdout")
	cmd.Flags().Uint64VarP(&count, "count", "c", 0, "end after `N` packets")
	cmd.Flags().BoolVar(&drops, "drops", false, "only packets that were dropped")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := control.CaptureRequest{Format: control.FormatText, Filter: strings.Join(args, " "), Count: count, Drops: drops}
		if _, err := pcapfilter.Compile(request.Filter); err != nil {
			return usageError{err}
		}
		if cmd.Flags().Changed("count") && count == 0 {
			return usagef("--count 0 would capture nothing: leave it out to capture until Ctrl-C")
		}
		out, finish := e.Stdout, func() error { return nil }
		if cmd.Flags().Changed("write") {
			request.Format = control.FormatPcapng
			var err error
			if out, finish, err = e.captureFile(file); err != nil {
				return err
			}
		}
		ctx, stop := interruptible(cmd)
		defer stop()
		result, err := client(*path).Capture(ctx, request, out, func() { fmt.Fprintln(e.Stderr, "capturing, Ctrl-C ends it") })
		if errors.Is(err, syscall.EPIPE) {
			err = nil // the reader of a pipe has seen enough
		}
		if err := errors.Join(err, finish()); err != nil {
			return err
		}
		fmt.Fprintf(e.Stderr, "packets captured: %d; lost, because they came faster than they were written: %d\n", result.Captured, result.Lost)
		return nil
	}
	return cmd
}

// captureFile opens where pcapng goes, and returns what closes it.
func (e *Env) captureFile(file string) (io.Writer, func() error, error) {
	if file == "-" {
		if e.Terminal {
			return nil, nil, usagef("-w - would write pcapng to the terminal: send it to a file or a pipe, or leave -w out for lines")
		}
		return e.Stdout, func() error { return nil }, nil
	}
	// Packets hold what people said: nobody else is to read them.
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("the capture can't be written: %w", err)
	}
	return f, f.Close, nil
}
