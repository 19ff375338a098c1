package main

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

var four = [4]byte{192, 0, 2, 1}

// query is a packed query with room behind it.
func query(t testing.TB, name string, change func(*dns.Msg)) (b []byte, n int) {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	if change != nil {
		change(m)
	}
	q, err := m.Pack()
	require.NoError(t, err)
	b = make([]byte, len(q)+100)
	return b, copy(b, q)
}

func TestRespond(t *testing.T) {
	long := string(bytes.Repeat([]byte("a23456789."), 25))
	for _, name := range []string{".", "kit.example.", long} {
		b, n := query(t, name, func(m *dns.Msg) { m.SetEdns0(1232, true) })
		asked := new(dns.Msg)
		require.NoError(t, asked.Unpack(b[:n]))
		got := new(dns.Msg)
		require.NoError(t, got.Unpack(b[:respond(b, n, four)]))
		want := new(dns.Msg).SetReply(asked)
		want.Authoritative = true
		require.Equal(t, want.MsgHdr, got.MsgHdr)
		require.Equal(t, asked.Question, got.Question)
		require.Len(t, got.Answer, 1)
		require.Equal(t, name+"\t60\tIN\tA\t192.0.2.1", got.Answer[0].String())
		require.Empty(t, got.Extra)
	}
}

func TestRespondToOthers(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*dns.Msg)
		rcode  int
	}{
		"another type":   {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }, dns.RcodeSuccess},
		"another class":  {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeSuccess},
		"another opcode": {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
	} {
		b, n := query(t, "kit.example.", c.change)
		got := new(dns.Msg)
		require.NoError(t, got.Unpack(b[:respond(b, n, four)]), what)
		require.Equal(t, c.rcode, got.Rcode, what)
		require.Empty(t, got.Answer, what)
	}
	b, n := query(t, "kit.example.", func(m *dns.Msg) { m.Response = true })
	require.Zero(t, respond(b, n, four), "a response has no response")
	b, n = query(t, "kit.example.", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })
	require.Zero(t, respond(b, n, four), "two questions")
	b, n = query(t, "kit.example.", nil)
	for cut := range n {
		require.Zero(t, respond(b[:cut:cut], cut, four), "a query cut to %d bytes", cut)
	}
	require.Equal(t, n, respond(b[:n:n], n, four), "without room for a record the answer has none")
}

func TestRespondAllocatesNothing(t *testing.T) {
	b, n := query(t, "kit.example.", nil)
	q := bytes.Clone(b)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		copy(b, q)
		if respond(b, n, four) == 0 {
			t.Fatal("no answer")
		}
	}))
}

// Whatever comes, the answer stays in its room.
func FuzzRespond(f *testing.F) {
	b, n := query(f, "kit.example.", nil)
	f.Add(b[:n], uint8(100))
	f.Fuzz(func(t *testing.T, q []byte, room uint8) {
		b := make([]byte, len(q)+int(room))
		copy(b, q)
		require.LessOrEqual(t, respond(b, len(q), four), len(b))
	})
}
