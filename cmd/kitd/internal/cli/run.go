package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kitnet.dev/kit/cmd/kitd/internal/caps"
	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/daemon"
)

func (e *Env) runCommand() *cobra.Command {
	var sources config.Sources
	cmd := &cobra.Command{
		Use: "run -i IFACE", Short: "hold a card, in the foreground", Args: noArgs,
		Long: "Holds a card until SIGTERM or SIGINT, in the foreground, and prints \"kitd: ready\" on stderr when it serves.\n" +
			"SIGHUP makes it read its configuration again.\n\n" +
			"Without --address kit shares the card's kernel addresses: only the ports that it binds are its own. With\n" +
			"--address it owns those addresses, which the kernel must not have: ARP, ping and all ports are its own.\n\n" +
			"A datagram's source can be forged. udp-echo and udp-chargen answer whoever seems to ask; chargen makes an empty\n" +
			"datagram into up to 512 bytes. Neither answers the source ports 7, 13, 17, 19, 37 and those of kitd's own\n" +
			"services, where a service might answer in turn without end, nor broadcasts.",
		Example: "  kitd run -i eth0 --serve udp-echo=:7\n  kitd run -i eth0 --address 10.0.0.5/24 --gateway 10.0.0.1",
	}
	config.Register(cmd.Flags(), &sources)
	completeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load := func() (*config.Config, error) {
			c, err := config.Load(sources)
			if err == nil {
				err = c.RequireInterface()
			}
			return c, err
		}
		c, err := load()
		if err != nil {
			return usageError{err}
		}
		return e.run(cmd.Context(), c, load)
	}
	return cmd
}

// run holds the card until a signal.
func (e *Env) run(ctx context.Context, c *config.Config, load func() (*config.Config, error)) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends a stop that hangs

	hangups, hangup := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				select {
				case hangup <- struct{}{}:
				case <-ctx.Done():
				}
			}
		}
	}()

	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	watchdog, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("the service manager's watchdog can't be understood: %w; look at WATCHDOG_USEC", err)
	}
	return e.Run(ctx, daemon.Options{
		Config: c, Reload: load, Log: newLog(e, c.Log, level), Level: level, Version: buildVersion().Module,
		Open: daemon.OpenKit, Drop: caps.Drop,
		Notify:   func(state string) { _, _ = systemd.SdNotify(false, state) }, // there may be no service manager
		Watchdog: watchdog,
		Ready:    func() { fmt.Fprintln(e.Stderr, "kitd: ready") },
		Hangup:   hangup,
	})
}

func newLog(e *Env, form string, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if form == "json" {
		return slog.New(slog.NewJSONHandler(e.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(e.Stderr, options))
}

// completeFlags tells the shell what the flags take.
func completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		var words []string
		switch f.Name {
		case "interface":
			_ = cmd.RegisterFlagCompletionFunc(f.Name, completeInterfaces)
			return
		case "config":
			_ = cmd.MarkFlagFilename(f.Name, "toml")
			return
		case "serve":
			for _, name := range config.ServiceNames() {
				words = append(words, name+"=:")
			}
		default:
			words = config.Choices(f.Name)
		}
		if words != nil {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
		}
	})
}

// completeInterfaces lists the machine's interfaces.
func completeInterfaces(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
