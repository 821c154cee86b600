package keepalived

import (
	"strings"

	"github.com/shunt-lb/shunt/director/config/translation"
)

// maxBlocks is how deep blocks may lie in each other: keepalived's lie four deep.
const maxBlocks = 50

// node is a directive with its block.
type node struct {
	at    translation.Position
	words []string // one at least
	block bool
	// unopened is that the block has no { and begins all the same: see unopened.
	unopened bool
	body     []*node
}

// word returns the word, or nothing if there are fewer.
func (n *node) word(i int) string {
	if i >= len(n.words) {
		return ""
	}
	return n.words[i]
}

// args returns the words behind the first.
func (n *node) args() []string { return n.words[1:] }

// String returns the directive for a note, without its block.
func (n *node) String() string { return translation.What(n.words...) }

// tree collects directives.
type tree struct {
	root  []*node
	open  []*node // blocks that have not ended, outermost first
	limit int     // of directives that are still to come
}

// maxDirectives limits what parameters and repetitions can make of a text.
const maxDirectives = 500_000

func newTree() *tree { return &tree{limit: maxDirectives} }

// siblings returns the list that a directive would be appended to now.
func (t *tree) siblings() *[]*node {
	if len(t.open) == 0 {
		return &t.root
	}
	return &t.open[len(t.open)-1].body
}

// unopened opens the block of the last directive if that has none and needs one.
// keepalived misses the brace, and takes all that follows, up to the next } of this
// level, for the block (keepalived: lib/parser.c, process_stream). It does the same
// where a } follows at once; here that ends the block around, as it was meant.
func (t *tree) unopened() {
	list := *t.siblings()
	if len(list) == 0 {
		return
	}
	last, parent := list[len(list)-1], ""
	if n := len(t.open); n > 0 {
		parent = t.open[n-1].word(0)
	}
	name := last.word(0)
	if last.block || (name != "virtual_server" || parent != "") && (name != "real_server" || parent != "virtual_server") {
		return
	}
	last.block, last.unopened = true, true
	t.open = append(t.open, last)
}

// ignoresBrace reports whether a directive is one that keepalived does not know where
// it stands, in a block without a {: it does not open a block there.
func (t *tree) ignoresBrace(n *node) bool {
	if len(t.open) == 0 || !t.open[len(t.open)-1].unopened {
		return false
	}
	parent := t.open[len(t.open)-1].word(0)
	return n.word(0) == "virtual_server" || n.word(0) == "virtual_server_group" || n.word(0) == "real_server" && parent != "virtual_server"
}

// line adds the directives of a line. A brace ends one wherever it stands, and
// the opening one may be on a later line than its directive.
func (t *tree) line(at translation.Position, tokens []token) error {
	var current *node
	for _, token := range tokens {
		if token.kind == word && current == nil {
			t.unopened()
		}
		list := t.siblings()
		switch {
		case token.kind == word && current == nil:
			if t.limit--; t.limit < 0 {
				return translation.Errorf(at, "the configuration has more than %d directives up to here", maxDirectives)
			}
			current = &node{at: at, words: []string{token.text}}
			*list = append(*list, current)
		case token.kind == word:
			current.words = append(current.words, token.text)
		case token.kind == opens:
			if len(*list) == 0 || (*list)[len(*list)-1].block {
				return translation.Errorf(at, "the block that begins here has no name")
			}
			owner := (*list)[len(*list)-1]
			if current = nil; t.ignoresBrace(owner) {
				continue
			}
			owner.block = true
			if t.open = append(t.open, owner); len(t.open) > maxBlocks {
				return translation.Errorf(at, "more than %d blocks lie in each other", maxBlocks)
			}
		case len(t.open) == 0:
			return translation.Errorf(at, "no block ends with this }")
		default:
			t.open = t.open[:len(t.open)-1]
			current = nil
		}
	}
	return nil
}

// finish returns the top level.
func (t *tree) finish() ([]*node, error) {
	if n := len(t.open); n > 0 {
		last := t.open[n-1]
		return nil, translation.Errorf(last.at, "the block %s has no }", last)
	}
	return t.root, nil
}

// kind of a token.
type kind int

const (
	word kind = iota
	opens
	closes
)

type token struct {
	kind kind
	text string // of words
}

// split divides a line into words and braces. A word that begins with a double
// quote goes to the next one, braces and all (keepalived: lib/parser.c,
// alloc_strvec_r and read_line); ok is false if there is none. A parameter that
// is not defined stays as it is, with its braces.
func split(line string) (tokens []token, ok bool) {
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case isBlank(c):
			i++
		case c == '{':
			tokens, i = append(tokens, token{kind: opens}), i+1
		case c == '}':
			tokens, i = append(tokens, token{kind: closes}), i+1
		case c == '"':
			end := strings.IndexByte(line[i+1:], '"')
			if end < 0 {
				return tokens, false
			}
			tokens, i = append(tokens, token{word, line[i+1 : i+1+end]}), i+end+2
		default:
			end := i
			for end < len(line) && !isBlank(line[end]) && !strings.ContainsRune(`{}"`, rune(line[end])) {
				if size := parameterSize(line[end:]); size > 0 {
					end += size
				} else {
					end++
				}
			}
			tokens, i = append(tokens, token{word, line[i:end]}), end
		}
	}
	return tokens, true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r' }

// parameterSize returns the length of a parameter in braces that s begins with; 0
// if it begins with none.
func parameterSize(s string) int {
	rest, ok := strings.CutPrefix(s, "${")
	if !ok {
		return 0
	}
	name := len(rest) - len(strings.TrimLeft(rest, nameCharacters))
	if name == 0 || name == len(rest) || rest[name] != '}' {
		return 0
	}
	return len("${}") + name
}
