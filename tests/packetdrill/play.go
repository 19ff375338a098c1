package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// script is one file.
type script struct {
	path string
	name string // below gtests/net/tcp, without .pkt: fast_retransmit/fr-4pkt
	// local is the address that the script wants the host to have; empty: the default.
	local string
}

// folder is the name's.
func (s script) folder() string { return filepath.Dir(s.name) }

// result is what became of a script.
type result struct {
	script
	passed bool
	why    string // the first line of what it said
	said   string
	took   time.Duration
}

var localOption = regexp.MustCompile(`(?m)^--local_ip=(\d+\.\d+\.\d+\.\d+)`)

// findScripts lists the scripts below a folder whose path matches.
func findScripts(folder string, only *regexp.Regexp) (found []script, err error) {
	folder, err = filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".pkt" || !only.MatchString(path) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s := script{path: path, name: nameOf(path)}
		if m := localOption.FindSubmatch(text); m != nil {
			s.local = string(m[1])
		}
		found = append(found, s)
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s has no scripts (*.pkt) that match", folder)
	}
	return found, err
}

// nameOf is the part of a path behind packetdrill's own folders; elsewhere, the last folder and the file.
func nameOf(path string) string {
	path = strings.TrimSuffix(path, ".pkt")
	if _, name, ok := strings.Cut(path, "/gtests/net/tcp/"); ok {
		return name
	}
	return filepath.Join(filepath.Base(filepath.Dir(path)), filepath.Base(path))
}

// The network that scripts expect. A host's gateway is nobody in them.
const (
	localIP  = "192.168.0.1"
	remoteIP = "192.0.2.1"
	netmask  = "255.255.0.0"
	prefix   = 16
)

// scriptLimit is how long a script may take, in real time: virtual time costs next to none.
const scriptLimit = 30 * time.Second

// play runs a script in a new network namespace.
func (t *tools) play(ctx context.Context, s script) result {
	ctx, cancel := context.WithTimeout(ctx, scriptLimit)
	defer cancel()
	local := s.local
	if local == "" {
		local = localIP
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", inside, t.packetdrill,
		"--ip_version=ipv4", "--local_ip="+local, "--gateway_ip="+local, "--netmask_ip="+netmask, "--remote_ip="+remoteIP,
		// What run_all.py of packetdrill defines for IPv4.
		"-D", "TFO_COOKIE=3021b9d889017eeb", "-D", "CODE=host_unreachable",
		"-D", "CMSG_LEVEL_IP=SOL_IP", "-D", "CMSG_TYPE_RECVERR=IP_RECVERR",
		"--so_filename="+t.shim, fmt.Sprintf("--so_flags=local=%s/%d %s", local, prefix, t.flags), filepath.Base(s.path))
	cmd.Dir = filepath.Dir(s.path)
	cmd.Env = append(os.Environ(), preloadVariable+"="+t.preload)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	begin := time.Now()
	err := cmd.Run()
	r := result{script: s, passed: err == nil, said: said.String(), took: time.Since(begin)}
	if cmd.Process != nil {
		_ = os.Remove(fmt.Sprintf("/tmp/sysctl_restore_%d.sh", cmd.Process.Pid)) // by the scripts' set_sysctls.py
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.why = fmt.Sprintf("it does not end within %v", scriptLimit)
	case err != nil:
		r.why = firstLine(r.said, s.path)
		if r.why == "" {
			r.why = err.Error()
		}
	}
	return r
}

// failedAssertion is what Python says of a %{ }% block: the assertion, a line of carets, and what was found instead.
var failedAssertion = regexp.MustCompile(`(?m)^ *.*?(assert .*)\n[ ^~]*\n?(AssertionError.*)`)

// assertion is that assertion and what was found, empty where none failed.
func assertion(said string) string {
	if m := failedAssertion.FindStringSubmatch(said); m != nil {
		return ": " + m[1] + ": " + m[2]
	}
	return ""
}

// firstLine is the first line that says what is wrong with the script, without its path; where there is none, the first line.
func firstLine(said, path string) (first string) {
	base := filepath.Base(path) + ":"
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if _, why, ok := strings.Cut(line, base); ok {
			return why + assertion(said)
		}
		if first == "" {
			first = line
		}
	}
	return first
}
