package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// table is text in columns for people. The columns fit what is in them, within
// each section; the last cell of a row takes what room there is.
type table struct {
	palette
	sections []section
}

type section [][]string

// row adds a line; an empty cell is a dash.
func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		if texts[i] = fmt.Sprint(cell); texts[i] == "" {
			texts[i] = "-"
		}
	}
	if len(t.sections) == 0 {
		t.sections = append(t.sections, nil)
	}
	last := len(t.sections) - 1
	t.sections[last] = append(t.sections[last], texts)
}

// blank ends a section with an empty line.
func (t *table) blank() { t.sections = append(t.sections, nil) }

// print writes the table. Lines end without blanks.
func (t *table) print(w io.Writer) error {
	var text strings.Builder
	for i, s := range t.sections {
		if i > 0 {
			text.WriteByte('\n')
		}
		var widths []int
		for _, cells := range s {
			widths = fit(widths, cells)
		}
		for _, cells := range s {
			text.WriteString(line(widths, cells))
		}
	}
	return write(w, []byte(text.String()))
}

// fit widens the columns to the cells, but for the last one.
func fit(widths []int, cells []string) []int {
	if missing := len(cells) - len(widths); missing > 0 {
		widths = append(widths, slices.Repeat([]int{0}, missing)...)
	}
	for i, cell := range cells[:len(cells)-1] {
		widths[i] = max(widths[i], width(cell))
	}
	return widths
}

// line lays cells out in columns, two blanks apart.
func line(widths []int, cells []string) string {
	var text strings.Builder
	for i, cell := range cells {
		text.WriteString(cell)
		if i < len(cells)-1 {
			text.WriteString(strings.Repeat(" ", max(widths[i]-width(cell), 0)+2))
		}
	}
	return strings.TrimRight(text.String(), " ") + "\n"
}
