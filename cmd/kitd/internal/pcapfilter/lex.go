package pcapfilter

import "strings"

// token is a word or an operator of the text.
type token struct {
	text string
	at   int  // byte offset
	word bool // letters and digits: a keyword, a name, a number, an address
	// escaped: written with a backslash, which makes a keyword a plain name.
	escaped bool
	// match is the index of the closing parenthesis of an opening one.
	match int
}

// operators, the longest first.
var operators = []string{"&&", "||", "==", "!=", "<=", ">=", "<<", ">>",
	"(", ")", "!", "=", "<", ">", "[", "]", ":", "+", "-", "*", "/", "%", "&", "|", "^"}

// lex cuts the text into tokens and finds the partner of each parenthesis.
func lex(text string) ([]token, error) {
	var tokens []token
	var open []int
	brackets := 0
	for at := 0; at < len(text); {
		if strings.IndexByte(" \t\r\n", text[at]) >= 0 {
			at++
			continue
		}
		t, length := next(text, at, brackets > 0)
		switch t.text {
		case "":
			return nil, &Error{Text: text, Word: text[at : at+1], At: at, Why: "is no character of a filter"}
		case "(":
			open = append(open, len(tokens))
		case ")":
			if len(open) == 0 {
				return nil, &Error{Text: text, Word: ")", At: at, Why: "closes nothing"}
			}
			tokens[open[len(open)-1]].match = len(tokens)
			open = open[:len(open)-1]
		case "[":
			brackets++
		case "]":
			brackets--
		}
		tokens = append(tokens, t)
		at += length
	}
	if len(open) > 0 {
		return nil, &Error{Text: text, Word: "(", At: tokens[open[0]].at, Why: "is never closed"}
	}
	return tokens, nil
}

// next returns the token at an offset and its length in the text; an empty one
// where no token begins with that character. Inside brackets a colon stands
// alone; outside it is part of a hardware address.
func next(text string, at int, inBrackets bool) (token, int) {
	start := at
	escaped := text[at] == '\\'
	if escaped {
		start++
	}
	end := start
	for end < len(text) && (isAlnum(text[end]) || end > start && isInner(text[end], inBrackets)) {
		end++
	}
	if end > start {
		return token{text: text[start:end], at: at, word: true, escaped: escaped}, end - at
	}
	for _, op := range operators {
		if !escaped && strings.HasPrefix(text[at:], op) {
			return token{text: op, at: at}, len(op)
		}
	}
	return token{}, 0
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isInner reports whether c may stand inside a word but not begin one.
func isInner(c byte, inBrackets bool) bool {
	return c == '.' || c == '-' || c == '_' || c == ':' && !inBrackets
}
