package main

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"kitnet.dev/kit/cmd/kitd/internal/control"
	"kitnet.dev/kit/internal/netlab"
)

// free is an address in the cable's network that neither end has.
func free(lab *netlab.Lab, last byte) string {
	a := lab.Left.Addr().As4()
	a[3] = last
	return netip.AddrFrom4(a).String()
}

func TestSharedAddress(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{Left: netlab.Side{Offloads: netlab.TxChecksum}, Right: netlab.Side{Offloads: netlab.TxChecksum}})
	ours := lab.Left.Addr().String()
	kernelEcho(t, lab.Left, ours+":5000")
	p := start(t, lab.Left, "--serve", "udp-echo=:7", "--serve", "udp-discard=:9", "--serve", "udp-chargen=:19")

	echo := client(t, lab.Right, ours+":7")
	for _, text := range []string{"hello", "x", strings.Repeat("long ", 290), strings.Repeat("in fragments ", 400)} {
		require.Equal(t, text, answer(t, echo, text))
	}
	require.Equal(t, "kernel: beside it", answer(t, client(t, lab.Right, ours+":5000"), "beside it"), "other ports stay the kernel's")
	_, err := lab.Right.Run(t.Context(), "ping", "-c", "2", "-i", "0.01", ours)
	require.NoError(t, err, "ping stays the kernel's")

	_, err = lab.Left.ListenPacket("udp", ours+":7")
	require.ErrorIs(t, err, syscall.EADDRINUSE, "a port of kit's is taken in the kernel, too")

	s := noun[control.Status](p, "status")
	require.Empty(t, s.Degraded)
	require.Equal(t, "shared", s.Mode)
	require.Equal(t, control.Choice{Asked: "auto", InUse: "native"}, s.Attach)
	require.Equal(t, control.Choice{Asked: "auto", InUse: "copy"}, s.Copy)
	require.Equal(t, control.Choice{Asked: "auto", InUse: "off"}, s.TxChecksum)
	require.Equal(t, []string{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"}, s.Capabilities)
	require.True(t, s.NoNewPrivs)
	require.Equal(t, p.cmd.Process.Pid, s.PID)

	sockets := noun[control.Sockets](p, "sockets", "sport = :7").Sockets
	require.Len(t, sockets, 1)
	require.Equal(t, ours+":7", sockets[0].Local)
	require.EqualValues(t, 4, sockets[0].Received)
	require.EqualValues(t, 4, sockets[0].Sent)
	require.NotEmpty(t, noun[control.Routes](p, "routes").Routes)
	require.Empty(t, s.Notes)
	_, err = lab.Left.Run(t.Context(), "ip", "rule", "add", "from", "10.9.9.9", "lookup", "77")
	require.NoError(t, err)
	for _, name := range []string{"status", "routes"} {
		require.Eventually(t, func() bool {
			out, _, status := p.ask(name)
			return status == 0 && strings.Contains(out, "policy routing is in use, and its rules are not followed")
		}, patience, 5*time.Millisecond, name)
	}
	require.Len(t, noun[control.Queues](p, "queues").Queues, 1)
	require.NotEmpty(t, noun[control.Neighbors](p, "neighbors").Neighbors)
	counted := map[string]uint64{}
	for _, c := range noun[control.Stats](p, "stats").Counters {
		counted[c.Group+" "+c.Interface+" "+c.Name] = c.Value
	}
	require.EqualValues(t, 4, counted["engine "+lab.Left.Interface()+" delivered"])
	require.Positive(t, counted["xdp  xsk_udp"])
	require.Positive(t, counted["xdp  xsk_fragment"])
	require.Positive(t, counted["xdp  pass_port"])
	require.Positive(t, counted["xdp  pass_icmp"])
	p.stop()

	require.Empty(t, answer(t, echo, "nobody is there any more"))
	kernelEcho(t, lab.Left, ours+":7")
	wantKernel(t, echo)
}

// wantKernel waits until the kernel's echo service answers.
func wantKernel(t *testing.T, conn net.Conn) {
	t.Helper()
	require.Eventually(t, func() bool { return answer(t, conn, "who?") == "kernel: who?" }, patience, 5*time.Millisecond)
}

func TestOwnedAddress(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{Right: netlab.Side{Offloads: netlab.TxChecksum}})
	ours := free(lab, 5)
	p := start(t, lab.Left, "--address", ours+"/24", "--gateway", lab.Right.Addr().String(), "--serve", "udp-echo=:7")
	for _, size := range []string{"56", "4000", "60000"} {
		_, err := lab.Right.Run(t.Context(), "ping", "-c", "3", "-i", "0.01", "-s", size, ours)
		require.NoError(t, err, "ping -s %s", size)
	}
	require.Equal(t, "hello", answer(t, client(t, lab.Right, ours+":7"), "hello"))
	s := noun[control.Status](p, "status")
	require.Equal(t, "owned", s.Mode)
	require.Empty(t, s.Capabilities, "the kernel has no part in it")
	require.Empty(t, s.Degraded)

	out, complaint, status := commandIn(t, lab.Left, "run", "-i", lab.Left.Interface(), "--control", p.control+"2",
		"--address", lab.Left.Addr().String()+"/24")
	require.Equal(t, 1, status)
	require.Empty(t, out)
	require.Contains(t, complaint, lab.Left.Addr().String(), "an address that the kernel has can't be owned")
	p.stop()
}

// What --tx-checksum asked for is in use, is counted, and can't be had everywhere.
func TestTxChecksum(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{Right: netlab.Side{Offloads: netlab.TxChecksum}})
	ours := lab.Left.Addr().String()
	p := start(t, lab.Left, "--serve", "udp-echo=:7", "--tx-checksum", "on")
	echo := client(t, lab.Right, ours+":7")
	for range 3 {
		require.Equal(t, "hello", answer(t, echo, "hello"))
	}
	s := noun[control.Status](p, "status")
	require.Equal(t, control.Choice{Asked: "on", InUse: "on"}, s.TxChecksum)
	require.Empty(t, s.Degraded)
	left := uint64(0)
	for _, c := range noun[control.Stats](p, "stats").Counters {
		if c.Name == "tx_partial" {
			left += c.Value
		}
	}
	require.EqualValues(t, 3, left, "the answers, whose checksums came unfinished")
	p.stop()

	_, complaint, status := commandIn(t, lab.Left, "run", "-i", lab.Left.Interface(), "--tx-checksum", "on", "--copy", "zerocopy", "--control", p.control)
	require.Equal(t, 1, status)
	require.Contains(t, complaint, "computes no checksums with zero-copy, which was asked for; use copy mode, or the TX checksum auto")
	out, _, status := commandIn(t, lab.Left, "check", "-i", lab.Left.Interface(), "--tx-checksum", "on", "--control", p.control)
	require.NotEqual(t, 1, status, "%s", out)
	require.Contains(t, out, "TX checksum")
}

func TestKilled(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	ours := lab.Left.Addr().String()
	p := start(t, lab.Left, "--serve", "udp-echo=:7")
	echo := client(t, lab.Right, ours+":7")
	require.Equal(t, "kit", answer(t, echo, "kit"))
	require.NoError(t, p.cmd.Process.Kill())
	p.wait()
	kernelEcho(t, lab.Left, ours+":7")
	wantKernel(t, echo)

	require.FileExists(t, p.control, "nobody removed it")
	again := launch(t, lab.Left, nil, "--control", p.control) // the later of two flags
	again.ready()
	again.control = p.control
	require.NotEqual(t, p.cmd.Process.Pid, noun[control.Status](again, "status").PID)
	again.stop()
}

func TestReloadOnHangup(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	ours := lab.Left.Addr().String()
	file := filepath.Join(t.TempDir(), "kitd.toml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write(`serve = ["udp-echo=:7"]`)
	p := start(t, lab.Left, "--config", file, "--wait", "interrupt")
	wantAnswer(t, client(t, lab.Right, ours+":7"), "before")

	write("serve = [\"udp-echo=:77\"]\nwait = \"busy\"\nmtu = 1400\nlog-level = \"warn\"")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	wantAnswer(t, client(t, lab.Right, ours+":77"), "after: a privileged port, with what was kept")
	require.Empty(t, answer(t, client(t, lab.Right, ours+":7"), "gone"))
	p.says("option=mtu")
	require.NotContains(t, p.log(), "option=wait", "a flag wins over the file")

	write("serve = 5.5")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.says("the configuration was not reloaded")
	_, _, status := p.ask("status")
	require.Equal(t, 3, status, "running, but not as asked")
	wantAnswer(t, client(t, lab.Right, ours+":77"), "still there")
	p.stop()
}

// startCapture runs 'kitd capture' until it captures, and returns what it says
// from then on.
func (p *process) startCapture(args ...string) (*exec.Cmd, io.Reader) {
	p.t.Helper()
	capture := exec.Command(binary, append([]string{"capture", "--control", p.control}, args...)...)
	stderr, err := capture.StderrPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, capture.Start())
	first := make([]byte, len("capturing"))
	_, err = io.ReadFull(stderr, first)
	require.NoError(p.t, err)
	require.Equal(p.t, "capturing", string(first))
	return capture, stderr
}

func TestCaptureOfARunningKitd(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	ours := free(lab, 7)
	p := start(t, lab.Left, "--address", ours+"/24", "--serve", "udp-echo=:7")
	file := filepath.Join(t.TempDir(), "x.pcapng")
	var complaint strings.Builder
	capture, stderr := p.startCapture("-w", file, "-c", "3", "udp", "port", "7", "or", "6")
	require.Equal(t, "hello", answer(t, client(t, lab.Right, ours+":7"), "hello"))
	require.Empty(t, answer(t, client(t, lab.Right, ours+":6"), "dropped"))
	_, _ = io.Copy(&complaint, stderr)
	require.NoError(t, capture.Wait(), complaint.String())
	require.Contains(t, complaint.String(), "packets captured: 3; lost, because they came faster than they were written: 0")

	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	reader, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	ends := map[string]int{}
	for range 3 {
		data, _, err := reader.ReadPacketData()
		require.NoError(t, err)
		packet := gopacket.NewPacket(data, layers.LinkTypeEthernet, gopacket.Default)
		require.NotNil(t, packet.Layer(layers.LayerTypeUDP))
		ends[packet.NetworkLayer().NetworkFlow().Dst().String()]++
	}
	require.Equal(t, 2, ends[ours], "towards us: a question and what was dropped; %v", ends)

	interrupted, heard := p.startCapture("-w", file)
	require.Equal(t, "hello", answer(t, client(t, lab.Right, ours+":7"), "hello"))
	require.NoError(t, interrupted.Process.Signal(syscall.SIGINT))
	said, _ := io.ReadAll(heard)
	require.NoError(t, interrupted.Wait())
	require.Regexp(t, `packets captured: \d+; lost, .*: 0`, string(said), "Ctrl-C is how a capture ends")

	out, _, status := p.ask("capture", "-w", "-", "-c", "1", "--drops", "nonsense")
	require.Equal(t, 2, status)
	require.Empty(t, out)
	p.stop()
}

func TestMetricsOfARunningKitd(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	p := start(t, lab.Left, "--serve", "udp-echo=:7", "--metrics", "127.0.0.1:9100")
	require.Equal(t, "hello", answer(t, client(t, lab.Right, lab.Left.Addr().String()+":7"), "hello"))
	transport := &http.Transport{DialContext: lab.Left.Dial, DisableKeepAlives: true}
	for path, want := range map[string]string{
		"/metrics": `kit_engine_delivered_total{interface="` + lab.Left.Interface() + `",queue="0"} 1`,
		"/healthz": "ok", "/readyz": "ok",
	} {
		response, err := (&http.Client{Transport: transport}).Get("http://127.0.0.1:9100" + path)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, 200, response.StatusCode)
		require.Contains(t, string(body), want)
	}
	p.stop()
}

func TestOneCardIsHeldOnce(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	p := start(t, lab.Left, "--serve", "udp-echo=:7")
	_, complaint, status := commandIn(t, lab.Left, "run", "-i", lab.Left.Interface(), "--control", p.control)
	require.Equal(t, 1, status)
	require.Equal(t, "kitd: control socket "+p.control+" belongs to a kitd that runs: stop it, or use another --control\n", complaint)
	_, complaint, status = commandIn(t, lab.Left, "run", "-i", lab.Left.Interface(), "--control", p.control+"2")
	require.Equal(t, 1, status)
	require.Contains(t, complaint, "kit_xdp", "it names the program that is there")
	require.Contains(t, complaint, "held by kitd")
	require.NoFileExists(t, p.control+"2")
	wantAnswer(t, client(t, lab.Right, lab.Left.Addr().String()+":7"), "the first one is not disturbed")
	p.stop()
}

func TestServicesFollowTheCardsAddresses(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	p := start(t, lab.Left, "--serve", "udp-echo=:7")
	_, err := lab.Left.Run(t.Context(), "ip", "address", "add", free(lab, 9)+"/24", "dev", lab.Left.Interface())
	require.NoError(t, err)
	wantAnswer(t, client(t, lab.Right, free(lab, 9)+":7"), "a new address")
	_, err = lab.Left.Run(t.Context(), "ip", "address", "del", free(lab, 9)+"/24", "dev", lab.Left.Interface())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return len(noun[control.Status](p, "status").Services[0].Addresses) == 1
	}, patience, 20*time.Millisecond)
	p.stop()
}

// The XDP program has room for 64 addresses. kitd goes on with those that it had, and says so until there is room again.
func TestMoreAddressesThanFit(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	p := start(t, lab.Left)
	card, err := lab.Left.Links().LinkByName(lab.Left.Interface())
	require.NoError(t, err)
	address := func(n int) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 99, 0, byte(n)), Mask: net.CIDRMask(32, 32)}}
	}
	status := func() (string, int) {
		out, _, status := p.ask("status")
		return out, status
	}
	for n := range 64 { // beside the one that it has
		require.NoError(t, lab.Left.Links().AddrAdd(card, address(n+1)))
	}
	require.Eventually(t, func() bool { _, s := status(); return s == 3 }, patience, 5*time.Millisecond)
	out, _ := status()
	require.Regexp(t, `degraded +the kernel's addresses of the interface could not be taken over, those of before are in use: `+
		`address 10\.[\d.]+ cannot be steered beside 64 others, which is the limit; remove one first`, out)
	require.NoError(t, lab.Left.Links().AddrDel(card, address(64)))
	require.Eventually(t, func() bool { _, s := status(); return s == 0 }, patience, 5*time.Millisecond)
	require.Len(t, noun[control.Status](p, "status").Addresses, 64)
	p.stop()
}

func TestACardThatIsDeletedEndsKitd(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	p := start(t, lab.Left)
	_, err := lab.Left.Run(t.Context(), "ip", "link", "del", lab.Left.Interface())
	require.NoError(t, err)
	require.Equal(t, 1, p.wait(), p.log())
	require.Contains(t, p.log(), "carries nothing any more")
}

func TestCheckOfACard(t *testing.T) {
	t.Parallel()
	lab := netlab.Test(t, netlab.Options{})
	card, peer := lab.Left.Interface(), lab.Right.Addr()
	out, complaint, status := commandIn(t, lab.Left, "check", "-i", card, "--serve", "udp-echo=:7", "-o", "jsonl")
	require.Contains(t, []int{0, 3}, status, complaint)
	require.Contains(t, out, `"topic":"port 7","severity":"ok"`)

	_, err := lab.Left.Run(t.Context(), "ip", "route", "add", "default", "via", peer.String())
	require.NoError(t, err)
	out, _, _ = commandIn(t, lab.Left, "check", "-i", card)
	require.Contains(t, out, peer.String()+" answers, "+lab.Right.HardwareAddr().String())

	file := filepath.Join(t.TempDir(), "kitd.toml")
	require.NoError(t, os.WriteFile(file, []byte("frame-size = 4096\nframes = 8192\nqueues = [5]\n"), 0o600))
	out, _, status = commandIn(t, lab.Left, "check", "-i", card, "--config", file)
	require.Equal(t, 1, status)
	require.Regexp(t, `fail +queues +.*queues \[5\] of `+card, out)
	out, _, _ = commandIn(t, lab.Left, "check", "-i", card, "--config", file, "--queues", "0")
	require.Regexp(t, `ok +MTU +1500 bytes in 8192 frames of 4096 a queue`, out)

	kernelEcho(t, lab.Left, lab.Left.Addr().String()+":7")
	out, _, status = commandIn(t, lab.Left, "check", "-i", card, "--serve", "udp-echo=:7")
	require.Equal(t, 1, status)
	require.Regexp(t, `fail +port 7 +another program has `, out)

	taken := netip.PrefixFrom(peer, 24).String()
	out, _, status = commandIn(t, lab.Left, "check", "-i", card, "--address", taken, "--gateway", free(lab, 99))
	require.Equal(t, 1, status)
	require.Regexp(t, `fail +address `+peer.String()+` +`+lab.Right.HardwareAddr().String()+" has it", out)
	require.Regexp(t, `warn +gateway +`+free(lab, 99)+` does not answer ARP`, out)

	p := start(t, lab.Left)
	out, _, status = commandIn(t, lab.Left, "check", "-i", card, "--control", p.control)
	require.Equal(t, 1, status)
	require.Regexp(t, `fail +other kitd +kitd, pid \d+, holds `+card+" already", out)
	p.stop()

	out, _, status = commandIn(t, lab.Left, "check", "-i", "nonesuch0")
	require.Equal(t, 1, status)
	require.Contains(t, out, "there is no interface nonesuch0")
}
