package tcp

import "reflect"

// PathTrouble tells that a segment could not leave this host, or not reach the next hop: advice as an ICMP error is, of what the
// connection's end is to be called should the peer stay silent (RFC 1122 section 4.2.3.9).
func (c *Conn) PathTrouble(kind PathErrorKind) {
	c.soft = ErrHostUnreachable
	if kind == NetUnreachable {
		c.soft = ErrNetUnreachable
	}
	c.events |= SoftError
}

// CongestionNames are the names that Conn.SetCongestion takes.
func CongestionNames() []string { return []string{"cubic", "newreno"} }

// Check returns what is wrong with a configuration, nil where NewLayer takes it.
func (c Config) Check() error { return c.check() }

// Add adds o's counters to s.
func (s *Stats) Add(o *Stats) {
	to, from := reflect.ValueOf(s).Elem(), reflect.ValueOf(o).Elem()
	for i := range to.NumField() {
		to.Field(i).SetUint(to.Field(i).Uint() + from.Field(i).Uint())
	}
}
