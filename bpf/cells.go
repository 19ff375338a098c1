package bpf

// The address table: open addressing with linear probing, laid out and searched as kit.h says. Programs search it
// while it is changed, so a cell in use never moves: what is removed leaves a mark behind that keeps the chain
// whole, until the chain's end has come back to it.

const (
	hashFactor = 0x9e3779b1
	hashShift  = 24
)

// cell is address << 32 | kind << 16 | slot; 0 ends a probe chain.
type cell uint64

const (
	emptyCell   cell = 0
	removedCell cell = 1
)

func newCell(address uint32, kind Kind, slot uint16) cell {
	return cell(uint64(address)<<32 | uint64(kind)<<16 | uint64(slot))
}

func (c cell) address() uint32 { return uint32(c >> 32) }
func (c cell) kind() Kind      { return Kind(c >> 16) }
func (c cell) slot() uint16    { return uint16(c) }

// hash is where an address's probe chain begins.
func hash(address uint32) int { return int(address * hashFactor >> hashShift) }

// probe walks the cells of an address's chain, the whole table at most, until stop.
func (t *Tables) probe(address uint32, stop func(c cell) bool) (i int, ok bool) {
	for n := range t.config.Cells {
		i = (hash(address) + n) % len(t.config.Cells)
		if stop(cell(t.config.Cells[i])) {
			return i, true
		}
	}
	return 0, false
}

// find returns the cell of an address that is in the table.
func (t *Tables) find(address uint32) (i int, ok bool) {
	i, ok = t.probe(address, func(c cell) bool { return c == emptyCell || c.address() == address })
	return i, ok && cell(t.config.Cells[i]) != emptyCell
}

// freeCell returns the cell for an address that is not in the table. There is one, as at most half of them are used.
func (t *Tables) freeCell(address uint32) int {
	i, _ := t.probe(address, func(c cell) bool { return c.kind() == removed })
	return i
}

// freeChain takes cell i out of use. Marks that no chain goes on behind become empty again.
func (t *Tables) freeChain(i int) {
	cells := &t.config.Cells
	t.store(i, removedCell)
	if cell(cells[(i+1)%len(cells)]) != emptyCell {
		return
	}
	for cell(cells[i]) == removedCell {
		t.store(i, emptyCell)
		i = (i + len(cells) - 1) % len(cells)
	}
}
