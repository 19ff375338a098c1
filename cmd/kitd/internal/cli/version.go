package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"kitnet.dev/kit/cmd/kitd/internal/control"
)

// build says what this binary was made of.
type build struct {
	Version  int    `json:"version"`            // of this document
	Module   string `json:"module"`             // version of kitnet.dev/kit
	Revision string `json:"revision,omitempty"` // of the source; "" where the build did not say
	Modified bool   `json:"modified"`           // the source had changes beyond the revision
	Go       string `json:"go"`
}

func buildVersion() build {
	b := build{Version: control.Version, Module: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Module, b.Go = info.Main.Version, info.GoVersion
	if b.Module == "" {
		b.Module = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (e *Env) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "what this kitd is", Args: noArgs}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		b := buildVersion()
		raw, err := json.Marshal(b)
		if err != nil {
			return err
		}
		return e.show(raw, *output, "", func(out io.Writer, _ []byte) error {
			revision := b.Revision
			if revision == "" {
				revision = "of an unknown revision"
			}
			if b.Modified {
				revision += " with changes"
			}
			_, err := fmt.Fprintf(out, "kitd %s %s, %s\n", b.Module, revision, b.Go)
			return err
		})
	}
	return cmd
}
