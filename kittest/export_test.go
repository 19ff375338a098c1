package kittest

import "testing"

// PeerFor is the peer of another test.
func PeerFor(p *Peer, t testing.TB) *Peer {
	other := *p
	other.t = t
	return &other
}
