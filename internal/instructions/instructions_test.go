package instructions

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var turned int

//go:noinline
func spin(n int) (sum int) {
	for i := range n {
		sum += i ^ sum
	}
	return sum
}

func turn(testing.TB) func(int) int {
	return func(n int) int {
		turned = spin(n)
		return n
	}
}

var fixed = Table{Whole("loop", turn).In("turn", 2, 6), Whole("loop from nothing", turn).In("turn", 0, 1000), {
	Name: "pieces", Unit: "turn", Setup: func(testing.TB) Round {
		return func(m *Meter, n int) int {
			for range n {
				turned = spin(100)
				m.Start()
				turned = spin(10)
				m.Stop()
			}
			return 10 * n
		}
	},
}, {
	Name: "allocates", Count: [2]int{0, 8}, Setup: func(testing.TB) Round {
		keep := make([][]byte, batch)
		return func(m *Meter, n int) int {
			m.Start()
			for i := range n {
				keep[i] = make([]byte, 100)
			}
			m.Stop()
			return n
		}
	},
}, {
	Name: "fails", Setup: func(tb testing.TB) Round {
		tb.Error("as it should")
		return func(*Meter, int) int { return 1 }
	},
}}

// TestInstructions is only what the processes run that are counted.
func TestInstructions(t *testing.T) {
	if os.Getenv(counted) != "" {
		fixed.Guard(t)
	}
}

func count(t *testing.T, name string) float64 {
	for i := range fixed {
		if fixed[i].Name == name {
			n, err := fixed[i].count()
			require.NoError(t, err)
			return n
		}
	}
	t.Fatal(name)
	return 0
}

// A turn of a loop is a whole number of instructions, and with the same turns in pieces each piece has a few around them.
func TestCountIsExact(t *testing.T) {
	each := count(t, "loop")
	require.Equal(t, float64(int(each)), each)
	require.GreaterOrEqual(t, each, 2.0)
	require.LessOrEqual(t, each, 8.0)
	require.InDelta(t, each, count(t, "loop from nothing"), 0.05, "an interval itself counts nothing")
	require.InDelta(t, each, count(t, "pieces"), 2)
}

// The same case costs the same in another process.
func TestCountIsRepeatable(t *testing.T) {
	first := count(t, "allocates")
	require.Greater(t, first, 20.0)
	for range 3 {
		require.InDelta(t, first, count(t, "allocates"), first/100)
	}
}

// A case that fails where it is counted fails for who asked, with what it said.
func TestCountOfAFailure(t *testing.T) {
	_, err := fixed[len(fixed)-1].count()
	require.ErrorContains(t, err, "as it should")
	unknown := Case{Name: "unknown"}
	_, err = unknown.count()
	require.ErrorContains(t, err, "there is no case unknown")
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		before, got float64
		says        string
	}{
		{1000, 1000, ""}, {1000, 1054, ""}, {1000, 1056, "dearer"}, {1000, 896, ""}, {1000, 894, "cheaper"},
		{10, 15, ""}, {10, 16, "dearer"}, {10, 4, ""}, {10, 3, "cheaper"},
	} {
		if got := judge(c.before, c.got); c.says == "" {
			require.Empty(t, got)
		} else {
			require.True(t, strings.HasPrefix(got, c.says), got)
		}
	}
}
