package instructions

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:noinline
func spin(n int) (sum int) {
	for i := range n {
		sum += i ^ sum
	}
	return sum
}

// loops makes a case of a loop that turns so often.
func loops(name string, turns int) Case {
	return Case{Name: name, Unit: "turn", Warm: 1, Setup: func(testing.TB) func(*Meter) int {
		return func(m *Meter) int {
			m.Start()
			spin(turns)
			m.Stop()
			return 1
		}
	}}
}

var fixed = Table{loops("short", 100), loops("long", 1100), loops("twice", 100), {
	Name: "allocates", Warm: 1, Setup: func(testing.TB) func(*Meter) int {
		var keep [8][]byte
		return func(m *Meter) int {
			m.Start()
			for i := range keep {
				keep[i] = make([]byte, 100)
			}
			m.Stop()
			return len(keep)
		}
	},
}, {
	Name: "fails", Setup: func(tb testing.TB) func(*Meter) int {
		tb.Error("as it should")
		return func(*Meter) int { return 1 }
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

// A thousand turns more are a whole number of instructions a turn more, and nothing else.
func TestCountIsExact(t *testing.T) {
	short, long := count(t, "short"), count(t, "long")
	each := (long - short) / 1000
	require.Equal(t, float64(int(each)), each, "%v and %v", short, long)
	require.GreaterOrEqual(t, each, 2.0)
	require.LessOrEqual(t, each, 8.0)
	require.Less(t, short, 100*each+20, "the interval itself counts nothing")
	require.Greater(t, short, 100*each)
	require.Equal(t, short, count(t, "twice"))
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
	_, err := fixed[4].count()
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
