package cli

import (
	"github.com/spf13/cobra"

	"kitnet.dev/kit/cmd/kitd/internal/demo"
)

func (e *Env) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "the main job, on a veth pair of its own, in less than a minute", Args: noArgs,
		Long: "Makes two network namespaces and a veth pair, runs kitd at one end and the kernel's own clients at the other,\n" +
			"shows what passes, and ends with a table against the kernel's own figures. Needs root; touches nothing of the\n" +
			"machine's own network, and leaves nothing behind.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return e.Demo(ctx, demo.Options{Self: e.Self, Out: e.Stdout, Terminal: e.Terminal})
		},
	}
}

// kernelEchoCommand is a part of the demonstration that runs in a namespace.
func (e *Env) kernelEchoCommand() *cobra.Command {
	return &cobra.Command{
		Use: demo.KernelEcho + " ADDR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return demo.ServeKernelEcho(args[0], e.Stderr) },
	}
}
