package bench

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/internal/bench/child"
)

// kitdStandIn begins those of one that stands in for kitd.
const kitdStandIn = "kitd-stand-in"

// standIn begins the arguments of a process that stands in for gvisor-rival.
const standIn = "gvisor-stand-in"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ChildArgument:
			os.Exit(ChildMain(os.Args[2:]))
		case standIn:
			fmt.Fprintln(os.Stderr, standInMain(os.Args[2:]))
			os.Exit(1)
		case kitdStandIn:
			terminated := make(chan os.Signal, 1)
			signal.Notify(terminated, unix.SIGTERM)
			fmt.Fprintln(os.Stderr, "kitd: attached\nkitd: ready")
			<-terminated
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// standInMain gives the task's address to the kernel, and serves there as Go's net does.
func standInMain(args []string) error {
	t, err := child.Begin(args)
	if err != nil {
		return err
	}
	card, err := netlink.LinkByName(t.Interface)
	if err != nil {
		return err
	}
	prefix := netip.PrefixFrom(t.Address.Addr(), t.Bits)
	at := &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(t.Bits, 32)}
	if err := netlink.AddrReplace(card, &netlink.Addr{IPNet: at}); err != nil {
		return err
	}
	return child.Run(t, serveGoStream)
}
