package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What is written without quotes: less than YAML allows, and nothing that needs
// thought. Brackets and commas end a text in a flow collection.
var (
	plain     = regexp.MustCompile(`^[A-Za-z0-9./_+]([][{},A-Za-z0-9./_:+%@*=~?-]*[][{},A-Za-z0-9./_+%@*=~?-])?$`)
	plainFlow = regexp.MustCompile(`^[A-Za-z0-9./_+]([A-Za-z0-9./_:+%@*=~?-]*[A-Za-z0-9./_+%@*=~?-])?$`)
)

// YAML 1.1 and 1.2 take these for something else than a text.
var (
	otherWords   = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n", ".inf", ".nan"}
	numberOrDate = regexp.MustCompile(`^[+-]?\.?[0-9][0-9A-Fa-fTtZzOoXx_+:.-]*$`)
)

// ambiguous reports whether a text without quotes may be taken for something
// else.
func ambiguous(text string) bool {
	if slices.Contains(otherWords, strings.TrimLeft(strings.ToLower(text), "+-")) {
		return true
	}
	if strings.Count(text, ".") == 3 || strings.Count(text, ":") > 2 {
		return false // an address
	}
	return numberOrDate.MatchString(text)
}

// written returns a scalar as it is written on a line by itself, or in a flow
// collection.
func (v *value) written(plain *regexp.Regexp) string {
	if v.bare && plain.MatchString(v.scalar) {
		return v.scalar
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range v.scalar {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r >= 0x7f && r < 0xa0 || isBreak(r) || r == '\ufeff' || r >= 0xfff0 && r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
