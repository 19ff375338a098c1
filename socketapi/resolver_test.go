package socketapi_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// resolverOf is a resolver that knows names without asking the network.
func resolverOf(t testing.TB, names map[string][]netip.Addr) *net.Resolver {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer, ok := answerOf(buf[:n], names); ok {
				_, _ = pc.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, pc.Close())
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", pc.LocalAddr().String())
	}}
}

// answerOf answers a question for addresses (RFC 1035 §4.1).
func answerOf(question []byte, names map[string][]netip.Addr) ([]byte, bool) {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil, false
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	q := m.Questions[0]
	addrs, known := names[q.Name.String()]
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	if q.Type == dnsmessage.TypePTR {
		for name, as := range names {
			for _, a := range as {
				if a.Is4() && q.Name.String() == reverse(a) {
					m.RCode = dnsmessage.RCodeSuccess
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
						Body:   &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(name)},
					})
				}
			}
		}
	}
	for _, a := range addrs {
		if q.Type == dnsmessage.TypeAAAA && a.Is6() {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AAAAResource{AAAA: a.As16()},
			})
		}
		if q.Type == dnsmessage.TypeA && a.Is4() {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: a.As4()},
			})
		}
	}
	b, err := m.Pack()
	return b, err == nil
}

// reverse is the name that an address's names are asked for by (RFC 1035 §3.5).
func reverse(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa.", b[3], b[2], b[1], b[0])
}
