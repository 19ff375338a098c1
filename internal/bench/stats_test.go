package bench

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	require.True(t, math.IsNaN(median(nil)))
	require.Equal(t, 3.0, median([]float64{3}))
	require.Equal(t, 2.5, median([]float64{4, 1, 3, 2}))
	values := []float64{9, 1, 5}
	require.Equal(t, 5.0, median(values))
	require.Equal(t, []float64{9, 1, 5}, values, "the caller's order stays")
}

func TestQuantile(t *testing.T) {
	require.Zero(t, quantile(nil, 0.5))
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i + 1)
	}
	for q, want := range map[float64]int64{0: 1, 0.5: 50, 0.99: 99, 0.999: 100, 1: 100} {
		require.Equal(t, want, quantile(hundred, q), "q = %v", q)
	}
	require.EqualValues(t, 7, quantile([]int64{7}, 0.99))
}
