package linktest

import (
	"encoding/binary"
	"fmt"
)

// TxChecksum is EndConfig.TxChecksum.
func (e *End) TxChecksum() bool { return e.offload }

// SendPartial is Send of a frame whose UDP or TCP checksum this end finishes, as a card
// does. It panics at what breaks the contract of package stack's ChecksumOffloader.
func (e *End) SendPartial(frame []byte, start, offset int) bool {
	if !e.offload {
		panic("linktest: SendPartial on an end without TxChecksum")
	}
	network := headerLen(frame)
	ip := frame[network:]
	header := int(ip[0]&15) * 4
	at := map[byte]int{6: 16, 17: 6}[ip[9]]
	switch {
	case at == 0 || binary.BigEndian.Uint16(ip[6:])&0x3FFF != 0:
		panic(fmt.Sprintf("linktest: SendPartial of protocol %d, fragment field %#x", ip[9], ip[6:8]))
	case start != network+header || offset != at:
		panic(fmt.Sprintf("linktest: SendPartial with the checksum at %d+%d, which is at %d+%d", start, offset, network+header, at))
	case int(binary.BigEndian.Uint16(ip[2:])) != len(ip):
		panic("linktest: SendPartial of a frame that does not end with its packet")
	}
	field := frame[start+offset:]
	if binary.BigEndian.Uint16(field) != sum(pseudo(ip, len(ip)-header), nil) {
		panic("linktest: SendPartial without the pseudo-header's sum")
	}
	// The card's work: the field's own value is the pseudo-header's part of the sum.
	kept := [2]byte(field)
	whole := ^sum(0, frame[start:])
	if ip[9] == 17 && whole == 0 {
		whole = 0xFFFF // 0 is for none, RFC 768
	}
	binary.BigEndian.PutUint16(field, whole)
	if !e.Send(frame) {
		copy(field, kept[:]) // still the caller's
		return false
	}
	e.wire.mu.Lock()
	e.stats.Partial++
	e.wire.mu.Unlock()
	return true
}
