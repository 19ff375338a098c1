package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChoiceOfRounds(t *testing.T) {
	near, nearToo, far, farToo := span{88, 95}, span{92, 120}, span{240, 260}, span{235, 250}
	for name, c := range map[string]struct {
		rounds []span
		near   float64
		want   []int
	}{
		"none":                                    {},
		"one":                                     {rounds: []span{far}, want: []int{0}},
		"all at one placement":                    {rounds: []span{near, nearToo, near}, want: []int{0, 1, 2}},
		"most rounds are far":                     {rounds: []span{far, near, farToo}, want: []int{0, 2}},
		"the nearer of as many":                   {rounds: []span{far, near, nearToo, farToo}, want: []int{1, 2}},
		"the cores moved in a round":              {rounds: []span{{90, 250}, near, far, nearToo}, want: []int{1, 3}},
		"the cores moved in every round":          {rounds: []span{{90, 250}, {88, 240}}},
		"too busy to tell":                        {rounds: []span{{0, 90}, far, {0, 0}}, want: []int{1}},
		"never told":                              {rounds: []span{{0, 90}, {0, 0}}},
		"each like the next, the ends not":        {rounds: []span{{100, 110}, {130, 140}, {170, 180}}, want: []int{0, 1}},
		"just comparable":                         {rounds: []span{{100, 150}}, want: []int{0}},
		"just not":                                {rounds: []span{{100, 151}}},
		"near was asked for":                      {rounds: []span{far, farToo, near}, near: 100, want: []int{2}},
		"near was asked for and came last":        {rounds: []span{near, far, farToo, nearToo}, near: 90, want: []int{0, 3}},
		"near was asked for and never came":       {rounds: []span{far, {400, 400}, farToo}, near: 100, want: []int{0, 2}},
		"all that is as near as was asked for":    {rounds: []span{{50, 60}, far, near, near, far, far}, near: 100, want: []int{2, 3}},
		"near was asked for, but the cores moved": {rounds: []span{{88, 250}, far}, near: 100, want: []int{1}},
	} {
		require.Equal(t, c.want, choose(c.rounds, c.near), name)
	}
}

// script is a runner, without a laboratory, of two subjects whose cores are told how far apart to be: a figure before and one
// after each measurement, and from the last figure on for ever. What is measured is 100 M divided by the figure before, or by
// twice that for the second subject.
func script(o Options, ns ...float64) (*runner, workload, *strings.Builder) {
	r, out := waiting(0, ns...)
	r.opts, r.subjects = o, []Subject{{Name: kitHandler, roles: answers}, {Name: recvmmsg, roles: answers}}
	distance, last := r.distance, 0.0
	r.distance = func() (float64, error) {
		var err error
		last, err = distance()
		return last, err
	}
	w := workload{name: echo, role: Echo, title: "answers", columns: []Column{{Key: "rate", Title: "answered", Unit: PerSecond}}}
	w.measure = func(_ context.Context, _ *runner, s Subject) (Sample, error) {
		rate := 1e8 / last
		if s.Name == recvmmsg {
			rate /= 2
		}
		return Sample{"rate": rate}, nil
	}
	return r, w, out
}

// steady are figures of rounds in each of which the cores stay so far apart.
func steady(ns ...float64) (figures []float64) {
	for _, one := range ns {
		figures = append(figures, one, one, one, one) // before and after, two subjects
	}
	return figures
}

func TestRoundsAreAddedUntilTheyCompare(t *testing.T) {
	moves := []float64{90, 90, 250, 250} // between the subjects
	for name, c := range map[string]struct {
		ns   []float64
		want Placement
		note string
	}{
		"steady": {ns: steady(90), want: Placement{MinNS: 90, MaxNS: 90, Comparable: true, Counted: 2}},
		"moved within a round": {ns: append(moves, steady(250)...),
			want: Placement{MinNS: 250, MaxNS: 250, Comparable: true, Counted: 2, Moved: 1},
			note: "echo: 2 of 3 rounds count, in which the cores stayed as far apart as they were (core to core 250 ns … 250 ns). " +
				"Left out since the cores moved, or were too busy to tell: 1."},
		"moved within a measurement": {ns: append([]float64{90, 250, 250, 250}, steady(250)...),
			want: Placement{MinNS: 250, MaxNS: 250, Comparable: true, Counted: 2, Moved: 1}, note: "echo: 2 of 3 rounds count"},
		"moved between rounds": {ns: steady(250, 90),
			want: Placement{MinNS: 90, MaxNS: 90, Comparable: true, Counted: 2, Elsewhere: 1},
			note: "Left out since the cores were nearer or farther: 1."},
		"went to a new place each time": {ns: steady(60, 100, 160, 250, 400, 700),
			want: Placement{MinNS: 60, MaxNS: 60, Comparable: true, Counted: 1, Elsewhere: 5},
			note: "Asked for were 2."},
		"moved in each round": {ns: slices.Repeat(moves, 6),
			want: Placement{MinNS: 90, MaxNS: 250, Counted: 6},
			note: "echo: in none of 6 rounds did the cores stay as far apart as they were (core to core 90.0 ns … 250 ns), so all " +
				"count, and its ratios may be those of placements."},
		"never told": {ns: []float64{0}, want: Placement{Counted: 6}, note: "(core to core unknown … unknown)"},
	} {
		r, w, out := script(Options{Repetitions: 2}, c.ns...)
		done, err := r.measure(context.Background(), w)
		require.NoError(t, err)
		require.Equal(t, &c.want, done.Placement, name)
		rounds := c.want.Counted + c.want.Moved + c.want.Elsewhere
		for _, result := range done.Results {
			require.Len(t, result.Samples, c.want.Counted, name)
			require.Len(t, result.LeftOut, rounds-c.want.Counted, name)
			for _, s := range result.Samples {
				require.GreaterOrEqual(t, s[beforeKey], c.want.MinNS, name)
				require.LessOrEqual(t, s[afterKey], c.want.MaxNS, name)
			}
		}
		require.Equal(t, 2*rounds, strings.Count(out.String(), "\n"), out.String())
		require.Equal(t, rounds > 2, strings.Contains(out.String(), "echo extra 1/4 kit handler: "), out.String())
		if c.want.Comparable {
			require.Equal(t, 2.0, done.Result(kitHandler).Ratios[recvmmsg], name)
		}
		notes := r.placementNotes([]Workload{done})
		if c.note == "" {
			require.Len(t, notes, 1, name)
		} else {
			require.Contains(t, notes[1], c.note, name)
		}
	}
}

func TestOneCoreHasNoPlacement(t *testing.T) {
	r, w, out := script(Options{Repetitions: 2}, 90)
	w.measure = func(context.Context, *runner, Subject) (Sample, error) { return Sample{"rate": 1}, nil }
	r.distance = nil
	done, err := r.measure(context.Background(), w)
	require.NoError(t, err)
	require.Nil(t, done.Placement)
	require.Equal(t, []Sample{{"rate": 1}, {"rate": 1}}, done.Results[0].Samples)
	require.NotContains(t, out.String(), "core to core")
	require.Contains(t, r.placementNotes([]Workload{done})[0], "There is one core")
	var table bytes.Buffer
	require.NoError(t, (&Report{Workloads: []Workload{done}}).WriteTable(&table))
	require.NotContains(t, table.String(), "core to core")
}

// A subject that fails has no part in the choice, from whichever round on, and where all fail nothing is repeated.
func TestFailedSubjectsHaveNoPlacement(t *testing.T) {
	r, w, out := script(Options{Repetitions: 2}, append([]float64{90, 90, 250, 250}, steady(90)...)...)
	measure, round := w.measure, 0
	w.measure = func(ctx context.Context, r *runner, s Subject) (Sample, error) {
		if s.Name == recvmmsg {
			if round++; round == 2 {
				return nil, errors.New("it broke")
			}
		}
		return measure(ctx, r, s)
	}
	done, err := r.measure(context.Background(), w)
	require.NoError(t, err)
	require.Equal(t, &Placement{MinNS: 90, MaxNS: 90, Comparable: true, Counted: 2}, done.Placement, out.String())
	require.Equal(t, "it broke", done.Result(recvmmsg).Error)

	w.measure = func(context.Context, *runner, Subject) (Sample, error) { return nil, errors.New("it broke") }
	out.Reset()
	done, err = r.measure(context.Background(), w)
	require.NoError(t, err)
	require.Nil(t, done.Placement)
	require.Equal(t, 2, strings.Count(out.String(), "it broke"))
	require.Len(t, r.placementNotes([]Workload{done}), 1)
}

func TestPlacementInTheTable(t *testing.T) {
	r, w, _ := script(Options{Repetitions: 2}, append([]float64{250, 250, 250, 250}, steady(90, 95)...)...)
	done, err := r.measure(context.Background(), w)
	require.NoError(t, err)
	var table bytes.Buffer
	require.NoError(t, (&Report{Workloads: []Workload{done}}).WriteTable(&table))
	require.Contains(t, table.String(), fmt.Sprintf("%s\n%s\n%s\n",
		"  subject      × recvmmsg  answered  min … max            core to core",
		"  kit handler  2.00        1.08 M/s  1.05 M/s … 1.11 M/s  90.0 ns … 95.0 ns",
		"  recvmmsg     1.00        541 k/s   526 k/s … 556 k/s    90.0 ns … 95.0 ns"))
}
