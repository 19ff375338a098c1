package socketapi_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// row is one sentence of the contract.
type row struct {
	call string
	says string
	test func(t *testing.T, w *world)
}

// TestContract runs the Network Kit contract, call by call, against every provider.
func TestContract(t *testing.T) {
	tables := [][]row{
		socketRows, tokenRows, bindRows("datagrams", (*host).udp), bindRows("streams", (*host).tcp), implicitBindRows, connectRows,
		nameRows, sendRows, receiveRows, blockRows, interruptRows, selectRows, optionRows, icmpRows, batchRows, handlerRows,
		streamSocketRows, listenRows, acceptRows, streamConnectRows, streamRows, streamEndRows, streamSelectRows, streamOptionRows,
	}
	for _, p := range providers {
		t.Run(p.name, func(t *testing.T) {
			for _, rows := range tables {
				for _, r := range rows {
					t.Run(r.call+"/"+r.says, func(t *testing.T) { r.test(t, p.open(t, true)) })
				}
			}
			for _, r := range stillRows {
				t.Run(r.call+"/"+r.says, func(t *testing.T) { r.test(t, p.open(t, false)) })
			}
		})
	}
}

// blocked waits until n goroutines sleep in a call of the Kit, such as "Recv".
func blocked(t testing.TB, call string, n int) {
	t.Helper()
	sleeping(t, "socketapi.(*Kit)."+call, n)
}

// sleeping waits until n goroutines sleep in a function, called by it or in one that it calls.
func sleeping(t testing.TB, function string, n int) {
	t.Helper()
	buf := make([]byte, 1<<20)
	require.Eventually(t, func() bool {
		found := 0
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			head, rest, _ := strings.Cut(g, "\n")
			if strings.Contains(head, "[select") && strings.Contains(rest, function+"(") {
				found++
			}
		}
		return found == n
	}, patience, time.Millisecond, "%d goroutines must block in %s", n, function)
}

// eventually waits for a condition that something else brings about.
func eventually(t testing.TB, why string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, time.Millisecond, why)
}
