package socketapi

import (
	"iter"
	"slices"
)

// FdSet is a set of tokens for Select. It holds any number of any tokens, and its zero value is the empty set. One
// goroutine at a time may change a set. It must not be copied by assignment; Copy does that.
//
// Set, Clear and IsSet search a sorted list: with tokens set in ascending order each takes a few nanoseconds, in random
// order Set also moves the larger tokens up. A program that keeps one set and copies it before each Select pays for
// neither.
type FdSet struct {
	_      noCopy
	tokens []Token // ascending, each once
}

// noCopy makes go vet report a copy, which would share the list with its original.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Zero takes every token out. It is FD_ZERO.
func (f *FdSet) Zero() { f.tokens = f.tokens[:0] }

// Set puts t in. It is FD_SET.
func (f *FdSet) Set(t Token) {
	n := len(f.tokens)
	if n == 0 || f.tokens[n-1] < t {
		f.tokens = append(f.tokens, t)
		return
	}
	if i, found := slices.BinarySearch(f.tokens, t); !found {
		f.tokens = slices.Insert(f.tokens, i, t)
	}
}

// Clear takes t out. It is FD_CLR, also spelt FD_CLEAR.
func (f *FdSet) Clear(t Token) {
	if i, found := slices.BinarySearch(f.tokens, t); found {
		f.tokens = slices.Delete(f.tokens, i, i+1)
	}
}

// IsSet reports whether t is in. It is FD_ISSET.
func (f *FdSet) IsSet(t Token) bool {
	_, found := slices.BinarySearch(f.tokens, t)
	return found
}

// Len returns how many tokens are in.
func (f *FdSet) Len() int { return len(f.tokens) }

// Range returns the smallest range with which Select looks at every token of the set: one more than its largest token.
func (f *FdSet) Range() Token {
	if len(f.tokens) == 0 {
		return 0
	}
	return f.tokens[len(f.tokens)-1] + 1
}

// Copy makes f hold what from holds.
func (f *FdSet) Copy(from *FdSet) { f.tokens = append(f.tokens[:0], from.tokens...) }

// All yields the tokens in ascending order. The set must not change meanwhile.
func (f *FdSet) All() iter.Seq[Token] { return slices.Values(f.tokens) }
