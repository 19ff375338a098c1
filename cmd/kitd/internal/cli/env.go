// Package cli is kitd's command line: nouns read a running kitd, verbs change
// the world. Results go to stdout, all else to stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kitnet.dev/kit/cmd/kitd/internal/check"
	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/daemon"
	"kitnet.dev/kit/cmd/kitd/internal/demo"
	"kitnet.dev/kit/internal/bench"
	"kitnet.dev/kit/loader"
)

// Exit statuses.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2 // the command line or configuration is wrong
	exitDegraded = 3 // check: warnings; status: running but not as asked
)

// Env is what commands touch of the world, so that tests can give them another.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Terminal       bool     // Stdout is one
	Self           []string // the command line that runs this program again

	// Run holds a card until ctx ends.
	Run func(context.Context, daemon.Options) error
	// Check looks at the machine.
	Check func(context.Context, *config.Config) ([]loader.Finding, error)
	// Demo shows kitd at work.
	Demo func(context.Context, demo.Options) error
	// Bench measures, and tells its progress.
	Bench func(context.Context, bench.Options, io.Writer) (bench.Report, error)
}

// usageError is a mistake of the one who typed.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// statusError ends a command with a status of its own, all having been said.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs a command line, without the program's name, and returns the exit
// status.
func (e *Env) Main(ctx context.Context, args []string) int {
	root := e.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	err := root.ExecuteContext(ctx)
	var status statusError
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage):
		e.complain(err)
		return exitUsage
	}
	e.complain(err)
	return exitFailed
}

// complain writes an error to stderr, a line each where several are joined.
func (e *Env) complain(err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(e.Stderr, "kitd: "+line)
	}
}

func (e *Env) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "kitd",
		Short: "hold a network card at AF_XDP speed while the kernel keeps everything else on it",
		Long: "kitd takes the packets of bound ports off a network card before the kernel sees them, and leaves all\n" +
			"others to the kernel. Nouns (status, stats, sockets, …) read a running kitd; verbs change something.\n\n" +
			"Exit status: 0 fine, 1 failed, 2 usage, 3 degraded.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usagef("there is no command %q; did you mean %s?", args[0], strings.Join(near, " or "))
			}
			return usagef("there is no command %q; 'kitd help' lists them", args[0])
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: "nouns", Title: "Nouns, which read a running kitd:"},
		&cobra.Group{ID: "verbs", Title: "Verbs:"})
	verbs := []*cobra.Command{e.runCommand(), e.checkCommand(), e.captureCommand(), e.connectCommand(), e.demoCommand(), e.benchCommand()}
	for _, c := range verbs {
		c.GroupID = "verbs"
	}
	root.AddCommand(verbs...)
	root.AddCommand(e.nounCommands()...)
	root.AddCommand(e.versionCommand(), e.kernelEchoCommand(), e.benchChildCommand())
	return root
}

// flagError words what pflag found wrong.
func flagError(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		return usageError{&config.ValueError{From: "--" + value.GetFlag().Name, Value: value.GetValue(), Err: errors.Unwrap(value)}}
	}
	return usagef("%v; '%s --help' lists the flags", err, cmd.CommandPath())
}

// interruptible is a command's context, ended by the signals that ask it to stop.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument, and %q is one", cmd.CommandPath(), args[0])
	}
	return nil
}

// System is the Env of a process.
func System() *Env {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return &Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: isTerminal(os.Stdout), Self: []string{self},
		Run: daemon.Run, Check: check.Run, Demo: demo.Run, Bench: benchRun,
	}
}
