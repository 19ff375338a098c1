package kittest_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit"
	"kitnet.dev/kit/kittest"
	"kitnet.dev/kit/socketapi"
)

// bindUDP makes a socket on the host's port.
func bindUDP(t *testing.T, k *socketapi.Kit, port uint16) kit.Token {
	t.Helper()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	require.NoError(t, err)
	at := netip.AddrPortFrom(kittest.HostAddr.Addr(), port)
	require.NoError(t, k.Bind(s, &at))
	return s
}

// shout answers in capitals.
func shout(p *kit.Packet) {
	for i, c := range p.Payload {
		if 'a' <= c && c <= 'z' {
			p.Payload[i] = c - 'a' + 'A'
		}
	}
	p.Reply(len(p.Payload))
}

const shouting = `
	# a comment
	> 10.77.0.9.4000 > 10.77.0.2.7: udp "a # is no \"comment\" here"   # but here
	< 10.77.0.2.7 > 10.77.0.9.4000: udp "A # IS NO \"COMMENT\" HERE"
	> 10.77.0.9.4000 > 10.77.0.2.7: udp 1000
	< 10.77.0.2.7 > 10.77.0.9.4000: udp 1000
	> 10.77.0.9.4000 > 10.77.0.2.7: udp ""
	< 10.77.0.2.7 > 10.77.0.9.4000: udp ""
	silence
`

func TestHandlerInMemory(t *testing.T) {
	h := kittest.NewHost(t, kittest.HostConfig{})
	require.NoError(t, h.Handle(bindUDP(t, h.Kit, 7), shout))
	h.Peer.Play(shouting)
	h.Peer.Play(`
		> 10.77.0.9 > 10.77.0.2: icmp echo request id 1 seq 2 "ping"
		< 10.77.0.2 > 10.77.0.9: icmp echo reply id 1 seq 2 "ping"
		> 10.77.0.9 > 10.77.0.2: icmp echo request id 1 seq 3 length 64
		< 10.77.0.2 > 10.77.0.9: icmp echo reply id 1 seq 3 length 64
		> arp who-has 10.77.0.2 tell 10.77.0.9
		> 10.77.0.9.4000 > 10.77.0.2.9: udp "nobody"
	`)
	require.Equal(t, byte(3), h.Peer.Takes()[34], "port unreachable")
	h.Peer.ShowARP = true
	h.Peer.Play(`
		> arp who-has 10.77.0.2 tell 10.77.0.9
		< arp 10.77.0.2 is-at 02:00:00:00:00:02
		silence
	`)
	require.NotZero(t, h.Stack().Stats().Answered)
}

func TestHandlerOnAPair(t *testing.T) {
	pair := kittest.NewPair(t, kittest.PairConfig{})
	k := pair.Right.Open(kit.Config{})
	require.NoError(t, k.Handle(bindUDP(t, k.Kit, 7), shout))
	pair.Peer().Play(shouting)
}

// Code that blocks runs against a host in real time, and who sends first is found by ARP.
func TestBlockingCode(t *testing.T) {
	h := kittest.NewHost(t, kittest.HostConfig{RealTime: true})
	pc, err := h.Net().ListenPacket("udp", ":7")
	require.NoError(t, err)
	done := make(chan error)
	go func() {
		b := make([]byte, 100)
		n, from, err := pc.ReadFrom(b)
		if err == nil {
			_, err = pc.WriteTo([]byte(strings.ToUpper(string(b[:n]))), from)
		}
		done <- err
	}()
	h.Peer.Play(`
		> 10.77.0.9.4000 > 10.77.0.2.7: udp "ping"
		< 10.77.0.2.7 > 10.77.0.9.4000: udp "PING"
		silence
	`)
	require.NoError(t, <-done)
	require.NoError(t, pc.Close())
}

// A TCP connection, in virtual time with calls that do not block.
func TestConnInVirtualTime(t *testing.T) {
	h := kittest.NewHost(t, kittest.HostConfig{})
	l, err := h.Socket(kit.AF_INET, kit.SOCK_STREAM, 0)
	require.NoError(t, err)
	at := netip.AddrPortFrom(kittest.HostAddr.Addr(), 80)
	require.NoError(t, h.Bind(l, &at))
	require.NoError(t, h.Listen(l, 5))
	require.NoError(t, h.SetSockOptInt(l, kit.SOL_SOCKET, kit.SO_NONBLOCK, 1))

	c := h.Peer.Conn(4000, at.String())
	c.Play(`
		> S 0:0 mss 1000 ws 2
		< S. 0:0 ack 1 mss 1460
		+1010ms
		< S. 0:0 ack 1           # again, as no ACK came
		> . 1:1 ack 1
		silence
	`)
	s, from, err := h.Accept(l)
	require.NoError(t, err)
	require.Equal(t, "10.77.0.9:4000", from.String())
	require.NoError(t, h.SetSockOptInt(s, kit.SOL_SOCKET, kit.SO_NONBLOCK, 1))
	_, err = h.Send(s, []byte("text"), 0)
	require.NoError(t, err)
	c.Play(`
		< P. 1:5 ack 1 "text"
		> . 1:1 ack 5
		> . 1:101 ack 5
	`)
	h.Wait(time.Second)
	c.Play(`
		< . 5:5 ack 101
		> R 101:101
		silence
	`)
	_, err = h.Recv(s, make([]byte, 200), 0)
	require.NoError(t, err)
	_, err = h.Recv(s, make([]byte, 200), 0)
	require.ErrorIs(t, err, syscall.ECONNRESET)

	other := h.Peer.Conn(4001, "10.77.0.2:81")
	other.Play(`
		> S 0:0
		< R. 0:0 ack 1
	`)
}

// The same over a veth pair, against code that blocks.
func TestConnOnAPair(t *testing.T) {
	pair := kittest.NewPair(t, kittest.PairConfig{})
	k := pair.Right.Open(kit.Config{})
	l, err := k.Net().Listen("tcp", ":80")
	require.NoError(t, err)
	acknowledged, done := make(chan bool), make(chan error)
	go func() {
		c, err := l.Accept()
		if err == nil {
			b := make([]byte, 5)
			_, err = c.Read(b)
			<-acknowledged
			fmt.Fprint(c, strings.ToUpper(string(b)))
			_, _ = c.Read(b)
			_ = c.Close()
		}
		done <- err
	}()
	c := pair.Peer().Conn(4000, "10.77.0.2:80")
	c.Opens()
	c.Play(`
		> P. 1:6 ack 1 "hello"
		< . 1:1 ack 6
	`)
	close(acknowledged)
	c.Play(`
		< P. 1:6 ack 6 "HELLO"
		> F. 6:6 ack 6
	`)
	require.NoError(t, <-done)
}

// A path's faults follow from its seed, in memory and on a veth pair, and are counted.
func TestPath(t *testing.T) {
	path := kittest.Path{Out: kittest.Faults{Loss: 0.5}, Back: kittest.Faults{Latency: 50 * time.Millisecond}, Seed: 7}
	const datagrams = 40

	h := kittest.NewHost(t, kittest.HostConfig{Path: path})
	require.NoError(t, h.Handle(bindUDP(t, h.Kit, 7), shout))
	for i := range datagrams {
		h.Peer.Sends(fmt.Sprintf(`10.77.0.9.4000 > 10.77.0.2.7: udp "no %d"`, i))
	}
	h.Wait(49 * time.Millisecond)
	h.Peer.WantsSilence("all are on their way back")
	h.Wait(time.Millisecond)
	inMemory := texts(h.Peer, datagrams)
	require.NotEmpty(t, inMemory)
	require.Less(t, len(inMemory), datagrams)

	pair := kittest.NewPair(t, kittest.PairConfig{Path: path})
	k := pair.Right.Open(kit.Config{})
	require.NoError(t, k.Handle(bindUDP(t, k.Kit, 7), shout))
	peer := pair.Peer()
	began := time.Now()
	for i := range datagrams {
		peer.Sends(fmt.Sprintf(`10.77.0.9.4000 > 10.77.0.2.7: udp "no %d"`, i))
	}
	require.Equal(t, inMemory, texts(peer, len(inMemory)), "the same are lost")
	peer.WantsSilence("no others come")
	require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
	out, back := pair.PathStats()
	require.EqualValues(t, datagrams, out.Sent)
	require.EqualValues(t, datagrams-len(inMemory), out.Lost)
	require.EqualValues(t, len(inMemory), back.Sent)

	pair.SetPath(kittest.Faults{}, kittest.Faults{})
	c, err := pair.Left.Dial(t.Context(), "udp", "10.77.0.2:7")
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("the kernel's"))
	require.NoError(t, err)
	b := make([]byte, 100)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	n, err := c.Read(b)
	require.NoError(t, err)
	require.Equal(t, "THE KERNEL'S", string(b[:n]))
}

// texts takes the payloads of the datagrams that come, of so many at most.
func texts(p *kittest.Peer, most int) (all []string) {
	for range most {
		f := p.Takes()
		if f == nil {
			break
		}
		all = append(all, string(f[42:]))
	}
	return all
}

// Kernels at both ends of a pair speak to each other, with and without a path, and two pairs never meet.
func TestPairsOfKernels(t *testing.T) {
	for name, path := range map[string]kittest.Path{"a cable": {}, "a path": {Out: kittest.Faults{Latency: time.Millisecond}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair := kittest.NewPair(t, kittest.PairConfig{Path: path, MTU: 2000})
			require.Contains(t, pair.Left.Run("ping", "-c", "3", "-i", "0.01", "-s", "1900", "-M", "do", pair.Right.Addr().String()), " 0% packet loss")
			require.Equal(t, "2000\n", pair.Right.Run("cat", "/sys/class/net/"+pair.Right.Interface()+"/mtu"))
			var out strings.Builder
			address := exec.Command("cat", "/sys/class/net/"+pair.Left.Interface()+"/address")
			address.Stdout = &out
			require.NoError(t, pair.Left.Start(address))
			require.NoError(t, address.Wait())
			require.Equal(t, pair.Left.HardwareAddr().String()+"\n", out.String())
			require.Contains(t, pair.Right.Name(), "kitlab-")
			l, err := pair.Right.Listen("tcp", ":80")
			require.NoError(t, err)
			defer l.Close()
			u, err := pair.Right.ListenPacket("udp", "10.77.0.2:80")
			require.NoError(t, err)
			defer u.Close()
			c, err := pair.Left.Dial(t.Context(), "tcp", "10.77.0.2:80")
			require.NoError(t, err)
			require.NoError(t, c.Close())
		})
	}
}

// A recorder is a test that fails without ending the one that tries it.
type recorder struct {
	testing.TB
	said string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.said = fmt.Sprintf(format, args...)
	panic(r)
}

// failure is why f's test fails.
func failure(t *testing.T, f func(t testing.TB)) string {
	r := &recorder{TB: t}
	func() {
		defer func() {
			if e := recover(); e != nil && e != any(r) {
				panic(e)
			}
		}()
		f(r)
	}()
	return r.said
}

// What fails on a pair fails the test, and says what.
func TestPairsFail(t *testing.T) {
	pair := kittest.NewPair(t, kittest.PairConfig{})
	for want, f := range map[string]func(*kittest.Pair){
		"no such luck":  func(p *kittest.Pair) { p.Left.Do(func() error { return errors.New("no such luck") }) },
		"nonsense":      func(p *kittest.Pair) { p.Right.Run("sh", "-c", "echo nonsense >&2; exit 1") },
		"wlan":          func(p *kittest.Pair) { p.Right.Open(kit.Config{Others: []kit.CardConfig{{Interface: "wlan7"}}}) },
		"has no path":   func(p *kittest.Pair) { p.SetPath(kittest.Faults{}, kittest.Faults{}) },
		"no path: make": func(p *kittest.Pair) { p.PathStats() },
	} {
		require.Contains(t, failure(t, func(r testing.TB) { f(kittest.PairFor(pair, r)) }), want)
	}
}

// A script that is not fulfilled, or that can't be read, says so.
func TestScriptsFail(t *testing.T) {
	for script, want := range map[string]string{
		"< 10.77.0.2.7 > 10.77.0.9.4000: udp 1":                                          "nothing came in place of 10.77.0.2.7 > 10.77.0.9.4000: udp 1",
		"> 10.77.0.9.1 > 10.77.0.2.7: udp \"a\"\n< 10.77.0.2.7 > 10.77.0.9.1: udp \"B\"": "there came\n\t10.77.0.2.7 > 10.77.0.9.1: udp \"A\"\nin place of\n\t10.77.0.2.7 > 10.77.0.9.1: udp \"B\"",
		"> 10.77.0.9.1 > 10.77.0.2.7: udp \"a\"\nsilence":                                "there came 10.77.0.2.7 > 10.77.0.9.1: udp \"A\": line 2 of the script: silence",
		"hello":                                 "line 1 of the script: \"hello\" begins neither",
		"-1s":                                   "line 1 of the script: \"-1s\" begins neither",
		"> hello":                               "send hello: want ",
		"> 10.77.0.9 > 10.77.0.2.7: udp 1":      "address too short",
		"> 10.77.0.9.1 > 10.77.0.2.x: udp 1":    "parsing \"x\"",
		"> 10.77.0.9.1 > 10.77.0.2.7: udp 9999": "the wire does not take",
		"> arp 10.77.0.2 is-at 02":              "Ethernet address",
	} {
		h := kittest.NewHost(t, kittest.HostConfig{})
		require.NoError(t, h.Handle(bindUDP(t, h.Kit, 7), shout))
		require.Contains(t, failure(t, func(r testing.TB) {
			kittest.PeerFor(h.Peer, r).Play(script)
		}), want, script)
	}
	for script, want := range map[string]string{
		"> S":                     "want flags, numbers",
		"> X 0:0":                 "is no flag",
		"> S 0:0 foo 1":           "\"foo\" is not known",
		"> . 1:6 \"a\"":           "it has 1 bytes",
		"> S 0:x":                 "parsing \"x\"",
		"> S 0:0\n< S. 0:0 ack 1": "there came\n\tR. 0:0 ack 1\nin place of\n\tS. 0:0 ack 1",
	} {
		h := kittest.NewHost(t, kittest.HostConfig{})
		require.Contains(t, failure(t, func(r testing.TB) {
			kittest.PeerFor(h.Peer, r).Conn(4000, "10.77.0.2:80").Play(script)
		}), want, script)
	}
}
