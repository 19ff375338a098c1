package linktest

import "encoding/binary"

// BundleLimit is EndConfig.Bundles.
func (e *End) BundleLimit(uint8) int { return e.bundles }

// SendBundle sends TCP segments or UDP datagrams that come in one piece, cut apart
// as Linux does it (tcp_gso_segment of net/ipv4/tcp_offload.c, __udp_gso_segment of
// net/ipv4/udp_offload.c, inet_gso_segment of net/ipv4/af_inet.c), after what is
// queued already. It reports false when the transmit ring has no room for all, and
// panics at what breaks the contract of package stack's Bundler.
func (e *End) SendBundle(header []byte, network int, payload [][]byte, segment int) bool {
	w := e.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	e.flush()
	var all []byte
	for _, p := range payload {
		all = append(all, p...)
	}
	ip := header[network:]
	total := len(ip) + len(all)
	if total > e.bundles {
		panic("linktest: SendBundle of more than BundleLimit")
	}
	if total > 65535 {
		total = 0
	}
	if len(payload) > 64 || len(all) <= segment || int(binary.BigEndian.Uint16(ip[2:])) != total {
		panic("linktest: SendBundle of impossible lengths")
	}
	transport, isUDP := ip[int(ip[0]&15)*4:], ip[9] == 17
	check := 16
	if isUDP {
		check = 6
		if int(binary.BigEndian.Uint16(transport[4:])) != len(transport)+len(all) {
			panic("linktest: SendBundle with another length in the UDP header")
		}
	}
	if binary.BigEndian.Uint16(transport[check:]) != sum(pseudo(ip, len(transport)+len(all)), nil) {
		panic("linktest: SendBundle without the pseudo-header's sum")
	}
	n := (len(all) + segment - 1) / segment
	if w.noBundle || e.taken+e.sent.len()+n > w.ring {
		return false
	}
	seq, id, flags := binary.BigEndian.Uint32(transport[4:]), binary.BigEndian.Uint16(ip[4:]), transport
	for i := range n {
		b := w.get(e, queued)
		part := all[i*segment : min((i+1)*segment, len(all))]
		b.n = copy(b.data, header)
		b.n += copy(b.data[b.n:], part)
		ip := b.data[network:b.n]
		transport := ip[int(ip[0]&15)*4:]
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], id+uint16(i))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:len(ip)-len(transport)]))
		if isUDP {
			binary.BigEndian.PutUint16(transport[4:], uint16(len(transport)))
		} else {
			binary.BigEndian.PutUint32(transport[4:], seq+uint32(i*segment))
			if i < n-1 {
				transport[13] = flags[13] &^ (1<<0 | 1<<3) // FIN and PSH are the last one's
			}
		}
		binary.BigEndian.PutUint16(transport[check:], 0)
		v := ^sum(pseudo(ip, len(transport)), transport)
		if isUDP && v == 0 {
			v = 0xFFFF // 0 is for none, RFC 768
		}
		binary.BigEndian.PutUint16(transport[check:], v)
		e.sent.push(b)
	}
	e.stats.Bundles++
	if total == 0 {
		e.stats.LongBundles++
	}
	e.flush()
	return true
}

// pseudo is the sum of TCP's or UDP's pseudo-header, RFC 9293 section 3.1.
func pseudo(ip []byte, length int) uint32 {
	return uint32(sum(0, ip[12:20])) + uint32(ip[9]) + uint32(length)
}

// sum is the Internet checksum's sum, RFC 1071.
func sum(v uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		v += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		v += uint32(b[0]) << 8
	}
	for v > 0xFFFF {
		v = v>>16 + v&0xFFFF
	}
	return uint16(v)
}
