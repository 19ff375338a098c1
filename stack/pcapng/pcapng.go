// Package pcapng writes packet captures as Wireshark and tcpdump read them: the
// pcapng format (draft-ietf-opsawg-pcapng), little-endian, with nanosecond
// timestamps, Ethernet frames, the direction of each and a comment.
//
// Every block is one Write, so a reader at the end of a pipe sees whole blocks;
// a caller that wants fewer and larger writes puts a bufio.Writer in between.
// Writing a packet does not allocate once the largest one has passed.
package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// MaxSnapLen is the most bytes of a frame that are kept, and what a SnapLen of 0
// means; Wireshark takes no more.
const MaxSnapLen = 262144

// Block types and option codes (draft-ietf-opsawg-pcapng sections 3.5, 4.1 to
// 4.3).
const (
	blockSection   = 0x0A0D0D0A
	blockInterface = 1
	blockPacket    = 6

	optionEnd        = 0
	optionComment    = 1
	optionUserAppl   = 4 // of a section
	optionName       = 2 // of an interface
	optionResolution = 9 // of an interface
	optionFlags      = 2 // of a packet

	byteOrderMagic   = 0x1A2B3C4D
	lengthUnknown    = ^uint64(0)
	linkTypeEthernet = 1
	resolutionNano   = 9 // 10^-9 s
	maxOption        = 0xFFFF
	blockTrailer     = 4 // the length once more
)

// Direction says which way a frame went: bits 0 and 1 of epb_flags.
type Direction uint8

// The directions.
const (
	DirectionUnknown Direction = 0
	Inbound          Direction = 1
	Outbound         Direction = 2
)

// Interface describes where frames were captured.
type Interface struct {
	Name string // "eth0"
	// SnapLen is how many bytes of each frame are kept; 0 is MaxSnapLen.
	SnapLen int
}

// Packet is one captured frame.
type Packet struct {
	Interface int // what AddInterface returned
	Time      time.Time
	// Data is the frame from its Ethernet header on, without FCS.
	Data []byte
	// Length is how long the frame was on the wire, where Data is less; 0
	// stands for the length of Data.
	Length    int
	Direction Direction
	// Comment is text about the frame, such as "drop: no socket"; cut after
	// 65,535 bytes.
	Comment string
}

// Writer writes one section of a capture. Its methods are for one goroutine.
type Writer struct {
	out      io.Writer
	buf      []byte
	snapLens []int
	err      error
}

// NewWriter writes the section header. application names the program that
// captures, "kitd 1.0".
func NewWriter(out io.Writer, application string) (*Writer, error) {
	w := &Writer{out: out}
	w.begin(blockSection)
	w.u32(byteOrderMagic)
	w.u32(1) // version 1.0: major, then minor
	w.buf = binary.LittleEndian.AppendUint64(w.buf, lengthUnknown)
	w.text(optionUserAppl, application)
	w.option(optionEnd, 0)
	if err := w.end("the section header"); err != nil {
		return nil, err
	}
	return w, nil
}

// AddInterface writes an interface description and returns the number by which
// packets name it, counted from 0.
func (w *Writer) AddInterface(i Interface) (id int, err error) {
	snapLen := i.SnapLen
	if snapLen <= 0 || snapLen > MaxSnapLen {
		snapLen = MaxSnapLen
	}
	w.begin(blockInterface)
	w.u32(linkTypeEthernet)
	w.u32(uint32(snapLen))
	w.text(optionName, i.Name)
	w.option(optionResolution, 1)
	w.buf = append(w.buf, resolutionNano)
	w.pad()
	w.option(optionEnd, 0)
	if err := w.end("an interface description"); err != nil {
		return 0, err
	}
	w.snapLens = append(w.snapLens, snapLen)
	return len(w.snapLens) - 1, nil
}

// WritePacket writes one frame, cut to its interface's SnapLen. p and its data
// are the caller's again when it returns.
func (w *Writer) WritePacket(p *Packet) error {
	if p.Interface < 0 || p.Interface >= len(w.snapLens) {
		return fmt.Errorf("pcapng: a packet names interface %d of %d; add the interface first", p.Interface, len(w.snapLens))
	}
	data := p.Data[:min(len(p.Data), w.snapLens[p.Interface])]
	stamp := uint64(p.Time.UnixNano())
	w.begin(blockPacket)
	w.u32(uint32(p.Interface))
	w.u32(uint32(stamp >> 32))
	w.u32(uint32(stamp))
	w.u32(uint32(len(data)))
	w.u32(uint32(max(len(p.Data), p.Length)))
	w.buf = append(w.buf, data...)
	w.pad()
	w.text(optionComment, p.Comment)
	if p.Direction != DirectionUnknown {
		w.option(optionFlags, 4)
		w.u32(uint32(p.Direction))
	}
	w.option(optionEnd, 0)
	return w.end("a packet")
}

// begin starts a block in the buffer; end fills its length in.
func (w *Writer) begin(blockType uint32) {
	w.buf = w.buf[:0]
	w.u32(blockType)
	w.u32(0)
}

// end completes the block and writes it. After an error the output may end in
// half a block, so nothing more is written.
func (w *Writer) end(what string) error {
	if w.err != nil {
		return w.err
	}
	n := uint32(len(w.buf) + blockTrailer)
	w.u32(n)
	binary.LittleEndian.PutUint32(w.buf[4:], n)
	written, err := w.out.Write(w.buf)
	if err == nil && written < len(w.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("pcapng: writing %s: %w; the capture ends here", what, err)
	}
	return w.err
}

// Err returns the error that ended the capture, nil while it goes on.
func (w *Writer) Err() error { return w.err }

func (w *Writer) u32(v uint32) { w.buf = binary.LittleEndian.AppendUint32(w.buf, v) }

// pad fills the buffer up to 4 bytes, where every field of variable length ends.
func (w *Writer) pad() {
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}

// option begins an option of n bytes.
func (w *Writer) option(code uint16, n int) { w.u32(uint32(n)<<16 | uint32(code)) }

// text writes an option with text; none for an empty one.
func (w *Writer) text(code uint16, s string) {
	if s == "" {
		return
	}
	s = s[:min(len(s), maxOption)]
	w.option(code, len(s))
	w.buf = append(w.buf, s...)
	w.pad()
}
