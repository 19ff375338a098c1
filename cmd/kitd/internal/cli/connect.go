package cli

import (
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/spf13/cobra"

	"kitnet.dev/kit"
	"kitnet.dev/kit/cmd/kitd/internal/control"
)

func (e *Env) connectCommand() *cobra.Command {
	var iface, gateway string
	var addresses []string
	var fallback bool
	cmd := &cobra.Command{
		Use: "connect HOST PORT", Short: "netcat over kit: stdin to the peer, the peer to stdout",
		Long: "Connects over kit's TCP. It asks a running kitd to do so; with -i it holds the card itself for as long as it runs,\n" +
			"with --address under an address of its own. It ends when both sides have sent all.\n\n" +
			"With --fallback the kernel connects where kit does not reach: its loopback and its own addresses, other cards, IPv6.\n" +
			"kitd sockets says which it is, and why.",
		Example: "  kitd connect 10.0.0.9 7\n  echo hello | kitd connect -i eth0 10.0.0.9 7\n  kitd connect --fallback localhost 22",
	}
	path := controlFlag(cmd)
	cmd.Flags().StringVarP(&iface, "interface", "i", "", "hold this card instead of asking a running kitd")
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "with -i: own this address, such as 10.0.0.5/24")
	cmd.Flags().StringVar(&gateway, "gateway", "", "with --address: next hop of the default route")
	cmd.Flags().BoolVar(&fallback, "fallback", false, "let the kernel connect where kit does not reach")
	_ = cmd.RegisterFlagCompletionFunc("interface", completeInterfaces)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usagef("connect takes HOST and PORT, such as 'kitd connect 10.0.0.9 7'")
		}
		to := net.JoinHostPort(args[0], args[1])
		ctx, stop := interruptible(cmd)
		defer stop()
		if iface == "" {
			if len(addresses) > 0 || gateway != "" {
				return usagef("--address and --gateway go with -i: a running kitd has its own")
			}
			stream, err := client(*path).Connect(ctx, to, fallback)
			if err != nil {
				return err
			}
			return e.netcat(ctx.Done(), stream)
		}
		cfg := kit.Config{Interface: iface}
		for _, a := range addresses {
			p, err := netip.ParsePrefix(a)
			if err != nil {
				return usagef("--address %q is not an address with a prefix length, such as 10.0.0.5/24", a)
			}
			cfg.Addresses = append(cfg.Addresses, p)
		}
		if gateway != "" {
			var err error
			if cfg.Gateway, err = netip.ParseAddr(gateway); err != nil {
				return usagef("--gateway %q is not an address, such as 10.0.0.1", gateway)
			}
		}
		k, err := kit.Open(cfg)
		if err != nil {
			return err
		}
		defer k.Close()
		network := "tcp4"
		if fallback {
			network = "tcp"
		}
		stream, err := (&kit.Dialer{Net: k.Net(), Fallback: fallback}).DialContext(ctx, network, to)
		if err != nil {
			return err
		}
		return e.netcat(ctx.Done(), stream.(*kit.TCPConn))
	}
	return cmd
}

// netcat copies stdin to the peer, whose end it then tells, and the peer to stdout, until the peer has sent all or stop is closed.
func (e *Env) netcat(stop <-chan struct{}, peer control.Stream) error {
	defer peer.Close()
	failed := make(chan error, 2)
	go func() {
		if _, err := io.Copy(peer, e.Stdin); err != nil {
			failed <- fmt.Errorf("sending failed: %w", err)
			return
		}
		_ = peer.CloseWrite() // if the peer is gone, receiving tells
	}()
	go func() {
		_, err := io.Copy(e.Stdout, peer)
		if err != nil {
			err = fmt.Errorf("receiving failed: %w", err)
		}
		failed <- err
	}()
	select {
	case err := <-failed:
		return err
	case <-stop:
		return nil
	}
}
