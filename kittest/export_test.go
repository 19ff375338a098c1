package kittest

import "testing"

// PeerFor is the peer of another test.
func PeerFor(p *Peer, t testing.TB) *Peer {
	other := *p
	other.t = t
	return &other
}

// PairFor is the pair of another test.
func PairFor(p *Pair, t testing.TB) *Pair {
	return &Pair{Left: &Namespace{t: t, n: p.Left.n}, Right: &Namespace{t: t, n: p.Right.n}, t: t, wire: p.wire}
}
