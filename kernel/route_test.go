package kernel

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// modelTable does to one destination's routes what fib_table_insert and fib_table_delete do, and tells it as they do.
type modelTable struct {
	list []kernelRoute
	told []routeEvent
}

type routeEvent struct {
	route kernelRoute
	flags uint16
	gone  bool
}

var modelDst = netip.MustParsePrefix("10.0.0.0/8")

// do tries one random change; some are refused, as in the kernel.
func (m *modelTable) do(random *rand.Rand, crowd bool) {
	r := kernelRoute{
		table: unix.RT_TABLE_MAIN, dst: modelDst, kind: unix.RTN_UNICAST, metric: uint32(random.IntN(2)), hops: []hop{{index: random.IntN(4) + 1}},
	}
	first := slices.IndexFunc(m.list, func(o kernelRoute) bool { return o.metric >= r.metric })
	if first < 0 {
		first = len(m.list)
	}
	end := first
	for end < len(m.list) && m.list[end].metric == r.metric {
		end++
	}
	known := slices.IndexFunc(m.list, func(o kernelRoute) bool { return o.same(&r) })
	verbs := 3
	if crowd {
		verbs = 5
	}
	verb := random.IntN(verbs)
	switch {
	case verb == 0: // del
		if known >= 0 {
			m.list = slices.Delete(m.list, known, known+1)
			m.told = append(m.told, routeEvent{r, 0, true})
		}
	case end == first: // whatever the verb
		m.insert(first, r, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	case known >= 0 || verb == 1: // add, or there already
	case verb == 2: // replace
		m.list[first] = r
		m.told = append(m.told, routeEvent{r, unix.NLM_F_REPLACE, false})
	case verb == 3: // append
		m.insert(end, r, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	case verb == 4: // prepend
		m.insert(first, r, unix.NLM_F_CREATE)
	}
}

func (m *modelTable) insert(at int, r kernelRoute, flags uint16) {
	m.list = slices.Insert(m.list, at, r)
	m.told = append(m.told, routeEvent{r, flags, false})
}

func (m *modelTable) routes() routes {
	if len(m.list) == 0 {
		return routes{}
	}
	return routes{modelDst: slices.Clone(m.list)}
}

// A reading overtakes some of the changes in the queue. Followed afterwards, they either lead to what is there or are known
// to be doubtful, so that everything is read again; and without routes that share a place, they are never doubtful.
func TestChangesAfterAReading(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	doubtful := 0
	for round := range 20_000 {
		crowd := round%2 == 1
		var m modelTable
		steps := func() {
			for range random.IntN(12) {
				m.do(random, crowd)
			}
		}
		steps()
		f := &Follower{log: slog.New(slog.DiscardHandler), changed: map[netip.Prefix]struct{}{}, routes: m.routes()}
		m.told = nil
		steps()
		f.replaceRoutes(m.routes())
		steps()
		for _, e := range m.told {
			f.routeChanged(e.route, e.flags, e.gone)
		}
		if f.overtaken != 0 {
			require.True(t, crowd, "round %d: read again without need", round)
			doubtful++
			continue
		}
		require.True(t, maps.EqualFunc(m.routes(), f.routes, func(a, b []kernelRoute) bool {
			return slices.EqualFunc(a, b, func(a, b kernelRoute) bool { return a.same(&b) })
		}), "round %d\ntold %v\nwant %v\nhave %v", round, m.told, m.routes(), f.routes)
	}
	t.Logf("%d of 20000 doubtful", doubtful)
}

// When nothing was read meanwhile, changes are followed whatever shares a place; only which of several was meant is a doubt.
func TestChangesInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for round := range 5_000 {
		var m modelTable
		f := &Follower{log: slog.New(slog.DiscardHandler), changed: map[netip.Prefix]struct{}{}, routes: routes{}}
		for range random.IntN(30) {
			m.do(random, true)
		}
		for _, e := range m.told {
			f.routeChanged(e.route, e.flags, e.gone)
		}
		require.Equal(t, fmt.Sprint(m.routes()), fmt.Sprint(f.routes), "round %d", round)
	}
}
