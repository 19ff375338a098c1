package tcp

// Ports proposes local ports for a connection from id.Local to id.Remote and
// its port, from first to last inclusive, until taken reports false for one;
// it reports false where every port is taken. It is RFC 6056 section 3.3.4,
// algorithm 4 with one counter: a keyed hash of the other three numbers says
// where to begin, so that an outsider cannot guess the next port, and a counter
// moves on so that a port is not used again soon.
func (l *Layer) Ports(id ID, counter *uint32, first, last uint16, taken func(port uint16) bool) (uint16, bool) {
	if last < first {
		return 0, false
	}
	count := uint32(last) - uint32(first) + 1
	id.LocalPort = 0
	offset := uint32(l.portKey.id(id, 0))
	for range count {
		port := first + uint16((offset+*counter)%count)
		*counter++
		if !taken(port) {
			return port, true
		}
	}
	return 0, false
}
