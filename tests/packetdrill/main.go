package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == inside {
		fmt.Fprintln(os.Stderr, enter(os.Args[2:]))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "packetdrill:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// needs is told who starts it without what it needs.
const needs = `it needs packetdrill and its scripts, which are not part of kit:
  make packetdrill PACKETDRILL=path/to/packetdrill SCRIPTS=path/to/gtests/net/tcp
Its source is at github.com/google/packetdrill; it is built in gtests/net/packetdrill with ./configure and make packetdrill`

// run runs the scripts and reports whether those that have to pass do.
func run(ctx context.Context, args []string, out io.Writer) (ok bool, err error) {
	flags := flag.NewFlagSet("packetdrill", flag.ContinueOnError)
	binary := flags.String("packetdrill", "", "the packetdrill `binary`")
	folder := flags.String("scripts", "", "the `folder` whose scripts are run")
	only := flags.String("run", "", "only scripts whose path matches this `regexp`")
	extra := flags.String("flags", "", "more words for --so_flags, such as tcp_ecn=1")
	verbose := flags.Bool("v", false, "print all that a script that failed said")
	jobs := flags.Int("j", 2, "how many scripts run at a time")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	if *binary == "" || *folder == "" {
		return false, errors.New(needs)
	}
	if os.Geteuid() != 0 {
		return false, errors.New("it needs root: each script runs in a network namespace of its own and changes settings there")
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return false, err
	}
	found, err := findScripts(*folder, pattern)
	if err != nil {
		return false, err
	}
	temp, err := os.MkdirTemp("", "kit-packetdrill-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(temp)
	tools, err := build(ctx, temp)
	if err != nil {
		return false, err
	}
	if tools.packetdrill, err = filepath.Abs(*binary); err != nil {
		return false, err
	}
	tools.flags = *extra
	results := runAll(ctx, tools, found, *jobs)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return report(out, results, *verbose), nil
}

// runAll runs the scripts, jobs at a time, and returns what became of them in their order.
func runAll(ctx context.Context, t *tools, scripts []script, jobs int) []result {
	results := make([]result, len(scripts))
	next := make(chan int)
	var group sync.WaitGroup
	for range max(1, jobs) {
		group.Go(func() {
			for i := range next {
				results[i] = t.play(ctx, scripts[i])
			}
		})
	}
	for i := range scripts {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	group.Wait()
	return results
}
