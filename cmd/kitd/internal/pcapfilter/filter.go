package pcapfilter

import "fmt"

// Limits of a filter's text, so that a text from a stranger costs little.
const (
	maxText  = 4096 // bytes
	maxDepth = 64   // parentheses and nots inside each other
)

// Filter decides which frames are wanted. Its zero value, and the filter of an
// empty text, want every frame. It is safe for use from any goroutine.
type Filter struct {
	root node
	text string
}

// Compile reads a filter. Errors are of type *Error.
func Compile(text string) (*Filter, error) {
	if len(text) > maxText {
		return nil, &Error{Text: text[:40] + "…", Why: fmt.Sprintf("is longer than %d bytes", maxText)}
	}
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	f := &Filter{text: text}
	if len(tokens) == 0 {
		return f, nil
	}
	p := parser{text: text, tokens: tokens}
	if f.root, err = p.expression(); err != nil {
		return nil, err
	}
	if !p.done() {
		return nil, p.refuse(p.peek(), "is not expected here")
	}
	return f, nil
}

// Match reports whether the frame, from its Ethernet header on, is wanted. It
// takes any bytes, keeps nothing and allocates nothing.
func (f *Filter) Match(frame []byte) bool {
	return f.root == nil || f.root.eval(frame) == yes
}

// String returns the filter's text.
func (f *Filter) String() string { return f.text }

// Error says why a text is not a filter.
type Error struct {
	Text string // the whole filter
	Word string // the word that is wrong; empty at the end of the text
	At   int    // where it stands, in bytes
	Why  string // what is wrong with it
}

// Error is one sentence.
func (e *Error) Error() string {
	if e.Word == "" {
		return fmt.Sprintf("filter %q %s", e.Text, e.Why)
	}
	return fmt.Sprintf("filter %q: %q at byte %d %s", e.Text, e.Word, e.At+1, e.Why)
}
