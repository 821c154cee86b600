package keepalived

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/director/config/translation"
)

// repeat processes the rest of a line that begins with ~SEQ or ~LST once for each
// value.
func (r *reader) repeat(l line, depth int) error {
	head, rest, found := strings.Cut(l.text, ")")
	name, arguments, opened := strings.Cut(head, "(")
	name = strings.TrimRight(name, " \t")
	if !found || !opened {
		r.drop(l, translation.LeftOut, "want ~SEQ(name, values) or ~LST(name, values)")
		return nil
	}
	var each func(func(map[string]string) error) error
	var err error
	switch name {
	case "~SEQ", "~SEQx":
		each, err = r.sequence(l, arguments, name == "~SEQx")
	case "~LST":
		each, err = list(arguments)
	default:
		r.drop(l, translation.LeftOut, fmt.Sprintf("unknown %s: want ~SEQ, ~SEQx or ~LST", name))
		return nil
	}
	if err != nil {
		r.drop(l, translation.LeftOut, err.Error())
		return nil
	}
	return each(func(values map[string]string) error {
		for name, value := range values {
			r.defs[name] = definition{value: value}
		}
		return r.process(line{l.at, strings.TrimLeft(rest, " \t")}, depth+1)
	})
}

// sequence reads name, [[start,] step,] end: numbers in Go's and C's forms, which
// parameters may stand for.
func (r *reader) sequence(l line, arguments string, hexadecimal bool) (func(func(map[string]string) error) error, error) {
	name, numbers, found := strings.Cut(arguments, ",")
	name = strings.TrimSpace(name)
	if !found || !isName(name) {
		return nil, fmt.Errorf("want a parameter's name and one to three numbers")
	}
	for range maxDepth {
		text, rest, changed := r.substitute(line{l.at, numbers})
		if !changed || rest != nil || len(text) > maxLine {
			break
		}
		numbers = text
	}
	var n []int64
	for _, word := range strings.Split(numbers, ",") {
		number, err := strconv.ParseInt(strings.TrimSpace(word), 0, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", strings.TrimSpace(word))
		}
		n = append(n, number)
	}
	var start, step, end int64
	switch len(n) {
	case 1:
		start, step, end = 1, 1, n[0]
		if end < 1 {
			step = -1
		}
		if end < 0 {
			start = -1
		}
	case 2:
		start, step, end = n[0], 1, n[1]
		if start > end {
			step = -1
		}
	case 3:
		start, step, end = n[0], n[1], n[2]
	default:
		return nil, fmt.Errorf("want one to three numbers")
	}
	if step == 0 || start < end && step < 0 || start > end && step > 0 {
		return nil, fmt.Errorf("the steps never come to the end")
	}
	if hexadecimal && (start < 0 || end < 0) {
		return nil, fmt.Errorf("~SEQx has no negative numbers")
	}
	base := 10
	if hexadecimal {
		base = 16
	}
	return func(do func(map[string]string) error) error {
		for i := start; step > 0 && i <= end || step < 0 && i >= end; i += step {
			if err := do(map[string]string{name: strconv.FormatInt(i, base)}); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// list reads name, value, … or {name, name}, {value, value}, …: values that are
// missing are empty.
func list(arguments string) (func(func(map[string]string) error) error, error) {
	tuples, err := tuples(arguments)
	if err != nil {
		return nil, err
	}
	if len(tuples) < 2 {
		return nil, fmt.Errorf("want a parameter's name and values")
	}
	names := tuples[0]
	for _, name := range names {
		if !isName(name) {
			return nil, fmt.Errorf("%q is not a parameter's name", name)
		}
	}
	var rows []map[string]string
	for _, values := range tuples[1:] {
		if len(values) > len(names) {
			return nil, fmt.Errorf("{%s} are more values than there are names", strings.Join(values, ", "))
		}
		row := make(map[string]string, len(names))
		for i, name := range names {
			row[name] = ""
			if i < len(values) {
				row[name] = values[i]
			}
		}
		rows = append(rows, row)
	}
	return func(do func(map[string]string) error) error {
		for _, row := range rows {
			if err := do(row); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// tuples splits a, {b, c}, … at the commas that are not in braces.
func tuples(s string) ([][]string, error) {
	var all [][]string
	for {
		s = strings.TrimLeft(s, " \t")
		var one string
		if inner, ok := strings.CutPrefix(s, "{"); ok {
			if one, s, ok = strings.Cut(inner, "}"); !ok {
				return nil, fmt.Errorf("a { has no }")
			}
			if s = strings.TrimLeft(s, " \t"); s != "" && s[0] != ',' {
				return nil, fmt.Errorf("want a comma behind }")
			}
			var words []string
			for _, word := range strings.Split(one, ",") {
				words = append(words, strings.TrimSpace(word))
			}
			all = append(all, words)
		} else {
			end := strings.IndexByte(s, ',')
			if end < 0 {
				end = len(s)
			}
			all, s = append(all, []string{strings.TrimSpace(s[:end])}), s[end:]
		}
		if s == "" {
			return all, nil
		}
		s = s[1:] // the comma
	}
}
