package stack

import "testing"

// RFC 1122 §4.1.3.5: what a user reads has the sender's address and the address that it was sent to.
func TestUDPIsDelivered(t *testing.T) {
	h := newHost(t)
	s := h.bind("10.0.0.1:7")
	h.arrives("delivered", packet{ttl: 9, tos: 0x28}.udp(4000, 7, "hello"))
	m := s.wants("hello", "10.0.0.2:4000")
	_ = m
	s.writes("hi", "10.0.0.2:4000")
	h.want("10.0.0.1.7 > 10.0.0.2.4000: udp 2")
	h.wantIdle("one datagram")
}
