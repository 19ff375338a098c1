package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// shimPackage is what is built to the shared object.
const shimPackage = "kitnet.dev/kit/tests/packetdrill/shim"

//go:embed preload/preload.c
var preloadSource []byte

// tools are what a script is run with.
type tools struct {
	packetdrill string // the binary
	shim        string // kit as a shared object
	preload     string // what routes libc's getsockopt to it
	flags       string // more of --so_flags
}

// build makes the shim and the preload in a folder.
func build(ctx context.Context, folder string) (*tools, error) {
	t := &tools{shim: filepath.Join(folder, "kit.so"), preload: filepath.Join(folder, "preload.so")}
	goBuild := exec.CommandContext(ctx, "go", "build", "-tags", "packetdrill", "-buildmode=c-shared", "-o", t.shim, shimPackage)
	goBuild.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := goBuild.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the shim: %w: %s", err, out)
	}
	source := filepath.Join(folder, "preload.c")
	if err := os.WriteFile(source, preloadSource, 0o600); err != nil {
		return nil, err
	}
	gcc := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", t.preload, source)
	if out, err := gcc.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the preload: %w: %s", err, out)
	}
	return t, nil
}
