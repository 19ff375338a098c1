package socketapi_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	. "kitnet.dev/kit/socketapi"
)

// An FdSet is a set, whatever the order of the calls.
func TestFdSet(t *testing.T) {
	var f, copied FdSet
	want := map[Token]bool{}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		s := Token(rnd.IntN(500))<<24 - 3
		switch rnd.IntN(5) {
		case 0, 1:
			f.Set(s)
			want[s] = true
		case 2, 3:
			f.Clear(s)
			delete(want, s)
		default:
			require.Equal(t, want[s], f.IsSet(s))
		}
		require.Equal(t, len(want), f.Len())
	}
	all := slices.Collect(f.All())
	require.True(t, slices.IsSorted(all))
	require.Equal(t, all[len(all)-1]+1, f.Range())
	for _, s := range all {
		require.True(t, want[s])
	}
	copied.Set(1 << 50)
	copied.Copy(&f)
	f.Zero()
	require.Zero(t, f.Len())
	require.Zero(t, f.Range())
	require.False(t, f.IsSet(all[0]))
	require.Equal(t, all, slices.Collect(copied.All()))
}
