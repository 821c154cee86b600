package main

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shunt-lb/shunt/director"
)

// topColumn is a column of a view.
type topColumn struct {
	head   string
	letter rune   // the key that sorts by it
	help   string // what it means
	number bool   // aligned right, and the greatest first
	shrink bool   // long texts are shortened where there is no room
	prose  bool   // at their end, not in their middle
	extra  bool   // only where there is room for everything
	rank   int    // the greatest go first where there is no room; 0 stays
}

// topCell is a value: as it is shown, and, in a column of numbers, what it is
// sorted by; NaN comes last.
type topCell struct {
	text   string
	number float64
}

func textCell(text string) topCell { return topCell{text: text} }

func numberCell(v float64) topCell { return topCell{shortNumber(v), v} }

// topMark says how a row looks.
type topMark int

// The marks.
const (
	markNone topMark = iota
	markFaint
	markWarn
	markBad
)

// topRow is a line of a view.
type topRow struct {
	key    string // stays the same while the row moves
	cells  []topCell
	mark   topMark
	detail string // the row in full, for the line below the table
	match  string // what the filter looks in
	client netip.Prefix
}

// contains reports whether the filter, in lower case, keeps the row. An address
// or prefix keeps connections of such clients, and templates that may have some.
func (r topRow) contains(filter string) bool {
	if r.client.IsValid() {
		if prefix, ok := clientFilter(filter); ok {
			return prefix.Overlaps(r.client)
		}
	}
	return strings.Contains(strings.ToLower(r.match), filter)
}

// clientFilter reads a filter that is an address or prefix.
func clientFilter(filter string) (netip.Prefix, bool) {
	prefix, err := director.ParsePrefix(filter)
	return prefix, err == nil
}

// filterRows returns the rows that the filter keeps.
func filterRows(rows []topRow, filter string) []topRow {
	if filter == "" {
		return rows
	}
	filter = strings.ToLower(filter)
	return slices.DeleteFunc(slices.Clone(rows), func(r topRow) bool { return !r.contains(filter) })
}

// sortRows sorts by the column. Rows that are equal stay in the order they came
// in; what is not known is last either way.
func sortRows(rows []topRow, columns []topColumn, by int, reverse bool) {
	down := columns[by].number != reverse
	slices.SortStableFunc(rows, func(a, b topRow) int {
		x, y := a.cells[by], b.cells[by]
		if columns[by].number {
			switch noX, noY := math.IsNaN(x.number), math.IsNaN(y.number); {
			case noX && noY:
				return 0
			case noX:
				return 1
			case noY:
				return -1
			}
		}
		order := cmp.Compare(x.number, y.number) // equal in columns of text
		if !columns[by].number {
			order = naturally(x.text, y.text)
		}
		if down {
			return -order
		}
		return order
	})
}

// The narrowest columns: one that can be shortened, and one of numbers, which
// would else change its width all the time.
const (
	minShrunk = 17
	minNumber = 5
)

// layout decides how wide each column is in the room there is; 0: not shown.
func layout(columns []topColumn, rows []topRow, room int) []int {
	natural := make([]int, len(columns))
	for i, c := range columns {
		natural[i] = utf8.RuneCountInString(c.head)
		if c.number {
			natural[i] = max(natural[i], minNumber)
		}
		for _, row := range rows {
			natural[i] = max(natural[i], utf8.RuneCountInString(row.cells[i].text))
		}
	}
	least := func(i int) int {
		if columns[i].shrink {
			return min(natural[i], minShrunk)
		}
		return natural[i]
	}
	shown := make([]bool, len(columns))
	for i := range shown {
		shown[i] = true
	}
	sum := func(width func(int) int) int {
		total := -1
		for i := range columns {
			if shown[i] {
				total += width(i) + 1
			}
		}
		return total
	}
	for _, i := range byRank(columns, func(c topColumn) bool { return c.extra }) {
		if sum(func(i int) int { return natural[i] }) > room {
			shown[i] = false
		}
	}
	for _, i := range byRank(columns, func(c topColumn) bool { return !c.extra && c.rank > 0 }) {
		if sum(least) > room {
			shown[i] = false
		}
	}
	widths := make([]int, len(columns))
	for i := range columns {
		if shown[i] {
			widths[i] = least(i)
		}
	}
	for left := room - sum(least); left > 0; left-- {
		narrowest := -1
		for i, w := range widths {
			if shown[i] && w < natural[i] && (narrowest < 0 || w < widths[narrowest]) {
				narrowest = i
			}
		}
		if narrowest < 0 {
			break
		}
		widths[narrowest]++
	}
	return widths
}

// byRank returns the columns that are meant, the first to go first.
func byRank(columns []topColumn, meant func(topColumn) bool) []int {
	var all []int
	for i, c := range columns {
		if meant(c) {
			all = append(all, i)
		}
	}
	slices.SortStableFunc(all, func(a, b int) int { return columns[b].rank - columns[a].rank })
	return all
}
