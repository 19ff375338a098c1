package socketapi_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// Names are looked up over the stack, at a name server that only kit reaches.
func TestLookUp(t *testing.T) {
	w := openStacks(t, true)
	names := map[string][]netip.Addr{
		"one.test.": {netip.MustParseAddr("192.0.2.1")}, "two.test.": {netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")},
		"empty.test.": nil, "six.test.": {netip.MustParseAddr("2001:db8::6")}, "far.test.": {w.far.cards[0]},
	}
	pc, err := w.far.goNet().ListenPacket("udp", ":53")
	require.NoError(t, err)
	done := make(chan struct{})
	asked := 0
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			asked++
			if answer, ok := answerOf(buf[:n], names); ok {
				_, _ = pc.WriteTo(answer, from)
			}
		}
	}()
	k := New(w.near.goNet().Stack())
	k.SetResolver(k.Net().Resolver(netip.AddrPortFrom(w.far.cards[0], 53)))

	h, err := k.GetHostByName("two.test.")
	require.NoError(t, err)
	require.ElementsMatch(t, names["two.test."], h.Addrs)
	require.Equal(t, "two.test.", h.Name)
	h, err = k.GetHostByAddr(names["two.test."][1])
	require.NoError(t, err)
	require.Equal(t, &HostEnt{Name: "two.test", Aliases: []string{}, Addrs: names["two.test."][1:]}, h)

	for name, reason := range map[string]HostError{"none.test.": HOST_NOT_FOUND, "empty.test.": HOST_NOT_FOUND, "six.test.": NO_DATA, "2001:db8::1": NO_DATA} {
		_, err = k.GetHostByName(name)
		require.ErrorIs(t, err, reason, name)
	}
	_, err = k.GetHostByAddr(netip.MustParseAddr("192.0.2.9"))
	require.ErrorIs(t, err, HOST_NOT_FOUND)
	var dns *net.DNSError
	require.ErrorAs(t, err, &dns)

	// Dials use it too.
	l := w.far.listens()
	c, err := (&Dialer{Net: w.near.goNet(), Resolver: w.near.goNet().Resolver(netip.AddrPortFrom(w.far.cards[0], 53))}).Dial("tcp",
		net.JoinHostPort("far.test.", portText(l.Addr().(*net.TCPAddr).AddrPort().Port())))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, pc.Close())
	<-done
	require.NotZero(t, asked)
}

// What needs no name server, and a resolver that gets no answer.
func TestLookUpWithoutServer(t *testing.T) {
	w := openStacks(t, true)
	k := New(w.near.goNet().Stack())
	h, err := k.GetHostByName("192.0.2.7")
	require.NoError(t, err)
	require.Equal(t, &HostEnt{Name: "192.0.2.7", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}, h)
	name, err := k.GetHostName()
	require.NoError(t, err)
	want, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, want, name)

	s, err := k.GetServByName("https", "tcp")
	require.NoError(t, err)
	require.Equal(t, &ServEnt{Name: "https", Port: 443, Proto: "tcp"}, s)
	s, err = k.GetServByName("domain", "")
	require.NoError(t, err)
	require.Equal(t, &ServEnt{Name: "domain", Port: 53, Proto: "tcp"}, s)
	_, err = k.GetServByName("no-such-service", "")
	require.ErrorIs(t, err, syscall.ENOENT)
	for _, number := range []string{"80", ""} {
		_, err = k.GetServByName(number, "tcp")
		require.ErrorIs(t, err, syscall.ENOENT)
	}
	_, err = k.GetServByName("http", "sctp")
	require.ErrorIs(t, err, syscall.EPROTONOSUPPORT)

	k.SetResolver(&net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no way")
	}})
	_, err = k.GetHostByName("one.test.")
	var reason HostError
	require.ErrorAs(t, err, &reason)
	require.NotEqual(t, HOST_NOT_FOUND, reason)
	for _, e := range []HostError{HOST_NOT_FOUND, TRY_AGAIN, NO_RECOVERY, NO_DATA} {
		require.NotEmpty(t, e.Error())
	}
}
