package config

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// comment is a comment of the text. The YAML library attaches comments to nodes
// too, but not all of them, and not where they would stay.
type comment struct {
	line, column int
	text         string // with its #
	own          bool   // nothing else is on its line, a dash aside
	blank        bool   // the line before is empty
	depth        int    // how many flow collections it is in
}

// scanner walks a text that was parsed already. Scalars are known from the node
// tree, so that a # outside them begins a comment.
type scanner struct {
	runes        []rune
	at           int
	line, column int
	depth        int
	scalars      map[[2]int]*yaml.Node // by line and column
	comments     []comment
}

// comments returns the text's comments in order.
func comments(data []byte, root *yaml.Node) []comment {
	s := &scanner{runes: []rune(string(data)), line: 1, column: 1, scalars: make(map[[2]int]*yaml.Node)}
	if root != nil {
		s.collect(root)
	}
	if len(s.runes) > 0 && s.runes[0] == '\ufeff' {
		s.at++ // the byte order mark has no column
	}
	lines := splitLines(string(data))
	for s.at < len(s.runes) {
		if n, ok := s.scalars[[2]int{s.line, s.column}]; ok {
			delete(s.scalars, [2]int{s.line, s.column})
			s.skipScalar(n)
			continue
		}
		switch s.runes[s.at] {
		case '[', '{':
			s.depth++
		case ']', '}':
			s.depth--
		case '#':
			s.comment(lines)
			continue
		}
		s.next()
	}
	return s.comments
}

func (s *scanner) collect(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && (n.Value != "" || n.Style != 0) {
		s.scalars[[2]int{n.Line, n.Column}] = n
	}
	for _, child := range n.Content {
		s.collect(child)
	}
}

// next goes to the next character.
func (s *scanner) next() {
	switch r := s.runes[s.at]; {
	case r == '\r' && s.at+1 < len(s.runes) && s.runes[s.at+1] == '\n':
	case isBreak(r):
		s.line, s.column = s.line+1, 1
	default:
		s.column++
	}
	s.at++
}

// skipScalar goes behind a scalar that begins here.
func (s *scanner) skipScalar(n *yaml.Node) {
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for s.next(); s.at < len(s.runes) && s.runes[s.at] != '"'; s.next() {
			if s.runes[s.at] == '\\' && s.at+1 < len(s.runes) {
				s.next()
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0:
		for s.next(); s.at < len(s.runes); s.next() {
			if s.runes[s.at] != '\'' {
				continue
			}
			if s.at+1 == len(s.runes) || s.runes[s.at+1] != '\'' {
				break
			}
			s.next()
		}
	default:
		// Any white space of the value may be more of it in the text, lines
		// included.
		for _, r := range n.Value {
			if isSpace(r) {
				for s.at < len(s.runes) && isSpace(s.runes[s.at]) {
					s.next()
				}
			} else if s.at < len(s.runes) && s.runes[s.at] == r {
				s.next()
			}
		}
		return
	}
	if s.at < len(s.runes) {
		s.next()
	}
}

// comment reads a comment that begins here, to the end of its line.
func (s *scanner) comment(lines []string) {
	line := []rune(lines[s.line-1])
	before := string(line[:min(s.column-1, len(line))])
	c := comment{line: s.line, column: s.column, depth: s.depth}
	c.own = strings.Trim(before, "- \t\ufeff") == ""
	if dash := strings.IndexByte(before, '-'); c.own && dash >= 0 {
		c.column = dash + 1 // it is about the element
	}
	c.blank = c.own && isBlank(lines, s.line-1)
	start := s.at
	for s.at < len(s.runes) && !isBreak(s.runes[s.at]) {
		s.next()
	}
	c.text = strings.TrimRight(string(s.runes[start:s.at]), " \t")
	s.comments = append(s.comments, c)
}

func isBreak(r rune) bool {
	return r == '\n' || r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029'
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' || isBreak(r) }

// isBlank reports whether the line, counted from 1, has nothing on it.
func isBlank(lines []string, line int) bool {
	return line >= 1 && line <= len(lines) && strings.TrimSpace(lines[line-1]) == ""
}
