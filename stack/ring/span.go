package ring

// span returns the n bytes of data from position pos on, in one piece or, over
// the end of data, in two. The length of data is a power of two and not below n.
func span(data []byte, pos, n uint64) (a, b []byte) {
	from := pos & uint64(len(data)-1)
	if end := from + n; end <= uint64(len(data)) {
		return data[from:end:end], nil
	}
	rest := n - (uint64(len(data)) - from)
	return data[from:], data[:rest:rest]
}

// putSpan copies p into data from position pos on.
func putSpan(data []byte, pos uint64, p []byte) {
	a, b := span(data, pos, uint64(len(p)))
	copy(b, p[copy(a, p):])
}

// getSpan copies from data, from position pos on, until p is full.
func getSpan(p, data []byte, pos uint64) {
	a, b := span(data, pos, uint64(len(p)))
	copy(p[copy(p, a):], b)
}

// cut returns the part of n bytes at offset off that lies in front of limit;
// nothing where a number is negative.
func cut(off, n int, limit uint64) (o, m uint64) {
	if off < 0 || n <= 0 || uint64(off) >= limit {
		return 0, 0
	}
	return uint64(off), min(uint64(n), limit-uint64(off))
}
