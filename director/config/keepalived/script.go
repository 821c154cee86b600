package keepalived

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

func (v *virtual) scriptDirective(c *checker, n *node) bool {
	switch n.word(0) {
	case "misc_path":
		command, _, problem := commandOf(n)
		if problem != "" {
			v.note(translation.NotCarried, n, "the check is not asked: "+problem)
		}
		c.check.Script.Command = command
	case "misc_timeout":
		if seconds, ok := v.number(n, 0, maxSeconds); ok && seconds > 0 {
			timeout := time.Duration(seconds) * time.Second
			c.scriptTimeout = &timeout
		}
	case "misc_dynamic":
		c.check.Script.Status = realserver.StatusWeight
	case "user":
		v.scriptUser(&c.check.Script.User, n)
	default:
		return false
	}
	return true
}

// scriptUser reads whom a script runs as.
func (v *virtual) scriptUser(to *string, n *node) {
	if *to = n.word(1); n.word(2) != "" && n.word(2) != n.word(1) {
		v.note(translation.Differs, n, fmt.Sprintf("the script has the groups of its user, not %s", n.word(2)))
	}
}

// commandOf returns a script's command in Shunt's form, and the words behind it: a
// user and a group. The command is one word, or several in quotes, which are taken
// apart as a shell does it (keepalived: lib/notify.c, set_script_params_array).
func commandOf(n *node) (command, rest []string, problem string) {
	text, rest := n.word(1), n.args()
	if len(rest) > 0 {
		rest = rest[1:]
	}
	if strings.HasPrefix(text, "'") {
		// Single quotes mean nothing where lines are taken apart, so that the words are
		// several.
		words := quotedWords(strings.Join(n.args(), " "))
		text, rest = words[0], words[1:]
	}
	words := quotedWords(text)
	switch {
	case len(words) == 0:
		return nil, rest, "there is no program"
	case !path.IsAbs(words[0]):
		return nil, rest, fmt.Sprintf("%s is not an absolute path", words[0])
	}
	if problem := translation.Unwritable(words...); problem != "" {
		return nil, rest, problem
	}
	for i, word := range words {
		if i > 0 {
			word = translation.Escape(word)
		}
		command = append(command, word)
	}
	return command, rest, ""
}

// quotedWords takes a text apart at blanks that are not in quotes.
func quotedWords(text string) (words []string) {
	var b strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			var size int
			c, size = escaped(text[i:])
			b.WriteByte(c)
			inWord, i = true, i+size
			continue
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			inWord, quote = true, c
		case quote == 0 && isBlank(c):
			if inWord {
				words = append(words, b.String())
			}
			b.Reset()
			inWord = false
		default:
			inWord = true
			b.WriteByte(c)
		}
		i++
	}
	if inWord {
		words = append(words, b.String())
	}
	return words
}

// unescape returns the text with its escapes read.
func unescape(text string) string {
	var b strings.Builder
	for text != "" {
		c, size := text[0], 1
		if c == '\\' && len(text) > 1 {
			c, size = escaped(text)
		}
		b.WriteByte(c)
		text = text[size:]
	}
	return b.String()
}

// escaped reads what begins with a backslash, and a character at least (keepalived:
// lib/parser.c, alloc_strvec_quoted_escaped).
func escaped(text string) (c byte, size int) {
	digits := func(from, most int, of string) string {
		end := from
		for end < len(text) && end < from+most && strings.IndexByte(of, text[end]) >= 0 {
			end++
		}
		return text[from:end]
	}
	switch hex, octal := "", digits(1, 3, "01234567"); {
	case octal != "":
		number, _ := strconv.ParseUint(octal, 8, 16) // three octal digits
		return byte(number), 1 + len(octal)
	case text[1] == 'x' && len(text) > 2:
		if hex = digits(2, len(text), "0123456789abcdefABCDEF"); hex == "" {
			return 'x', 2
		}
		number, _ := strconv.ParseUint(hex[max(0, len(hex)-2):], 16, 8) // two hexadecimal digits
		return byte(number), 2 + len(hex)
	case text[1] == 'c' && len(text) > 2:
		return text[2] & 0x1f, 3
	}
	if i := strings.IndexByte("abEfnrtv", text[1]); i >= 0 {
		return "\a\b\x1b\f\n\r\t\v"[i], 2
	}
	return text[1], 2
}
