package cli

import (
	"encoding/json"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"kitnet.dev/kit/cmd/kitd/internal/config"
	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/loader"
)

// findings is the document of kitd check.
type findings struct {
	Version  int              `json:"version"`
	Findings []loader.Finding `json:"findings"`
}

func (e *Env) checkCommand() *cobra.Command {
	var sources config.Sources
	cmd := &cobra.Command{
		Use: "check [-i IFACE]", Short: "can this machine and card run kit, and how well", Args: noArgs,
		Long: "Looks at the machine, and with -i at a card, and says of each thing that matters ok, warn or fail, with a fix.\n" +
			"It takes the options of kitd run, by flags or by --config, and judges what kitd would run with.\n" +
			"Nothing is changed. Exit status: 0 all is fine, 1 kit can't run, 3 it can, with warnings.",
		Example: "  kitd check -i eth0\n  kitd check --config /etc/kit/eth0.toml -i eth0",
	}
	config.Register(cmd.Flags(), &sources)
	completeFlags(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(sources)
		if err != nil {
			return usageError{err}
		}
		list, err := e.Check(cmd.Context(), c)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(findings{Version: control.Version, Findings: list})
		if err != nil {
			return err
		}
		if err := e.show(raw, *output, "findings", findingsTable); err != nil {
			return err
		}
		switch worst := slices.MaxFunc(list, func(a, b loader.Finding) int { return int(a.Severity) - int(b.Severity) }); worst.Severity {
		case loader.Fail:
			return statusError(exitFailed)
		case loader.Warn:
			return statusError(exitDegraded)
		}
		return nil
	}
	return cmd
}

func findingsTable(out io.Writer, raw []byte) error {
	d, err := decode[findings](raw)
	if err != nil {
		return err
	}
	t := newTable("", "TOPIC", "FOUND", "FIX")
	for _, f := range d.Findings {
		t.add(f.Severity, f.Topic, f.What, f.Fix)
	}
	return t.print(out)
}
