package main

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/gdamore/tcell/v2"
)

// The smallest screen that is drawn on, and the least height that has room for
// all lines above the table and for the line below it.
const (
	minTopWidth  = 20
	minTopHeight = 6
	roomyTop     = 16
)

// topCanvas draws the model on a screen. It puts a frame together by itself:
// a cell that is cleared and then set to what it was would be sent to the
// terminal again by tcell.
type topCanvas struct {
	screen        tcell.Screen
	palette       palette
	width, height int
	frame         []topPlace
}

// topPlace is one place of the screen.
type topPlace struct {
	r    rune
	look topLook
}

// draw shows the model as it is.
func (c *topCanvas) draw(m *topModel, now time.Time) {
	c.width, c.height = c.screen.Size()
	c.frame = slices.Repeat([]topPlace{{r: ' '}}, c.width*c.height)
	if c.width < minTopWidth || c.height < minTopHeight {
		c.line(0, []topSpan{{"too small", lookBold}})
	} else {
		c.all(m, now)
	}
	for i, place := range c.frame {
		c.screen.SetContent(i%c.width, i/c.width, place.r, nil, c.style(place.look))
	}
	c.screen.Show()
}

// all draws everything on a screen that is large enough.
func (c *topCanvas) all(m *topModel, now time.Time) {
	roomy := c.height >= roomyTop
	y := 0
	for _, spans := range m.headLines(roomy, now) {
		c.line(y, spans)
		y++
	}
	top := y + 2 // below the path and the heads of the columns
	m.page = c.height - top - 1
	if roomy {
		m.page-- // the detail
	}
	rows, selected := m.table()
	c.line(y, m.pathLine(len(rows)))
	c.table(top-1, m, rows, selected)
	if selected < 0 {
		c.text(1, top, m.emptyText(), lookPlain)
	} else if roomy {
		c.text(0, c.height-2, cut(printable(rows[selected].detail), c.width), lookFaint)
	}
	c.foot(m.footLine())
}

// table draws the heads of the columns and the rows below.
func (c *topCanvas) table(y int, m *topModel, rows []topRow, selected int) {
	v := m.view()
	columns := v.columns()
	widths := layout(columns, rows, c.width)
	row := func(y int, look topLook, text func(int) string) {
		c.text(0, y, pad("", c.width, false), look)
		x := 0
		for i, column := range columns {
			if widths[i] == 0 {
				continue
			}
			fit := shorten
			if column.prose {
				fit = cut
			}
			c.text(x, y, pad(fit(printable(text(i)), widths[i]), widths[i], column.number), look)
			x += widths[i] + 1
		}
	}
	row(y, lookHead, func(i int) string { return columns[i].head })
	c.sorted(y, v, widths)
	offset := m.scroll(len(rows), max(selected, 0))
	for i := offset; i < min(len(rows), offset+m.page); i++ {
		look := map[topMark]topLook{markFaint: lookFaint, markWarn: lookWarn, markBad: lookBad}[rows[i].mark]
		if i == selected {
			look = lookSelected
		}
		row(y+1+i-offset, look, func(column int) string { return rows[i].cells[column].text })
	}
}

// sorted marks the column that is sorted by: the only head that is not reversed.
func (c *topCanvas) sorted(y int, v *topView, widths []int) {
	if v.kind == viewHelp {
		return
	}
	x := 0
	for i, column := range v.columns() {
		switch {
		case widths[i] == 0:
			continue
		case i == v.sort:
			c.text(x, y, pad(shorten(column.head, widths[i]), widths[i], column.number), lookBold)
		}
		x += widths[i] + 1
	}
}

// foot draws the keys in the last line, as many as there is room for; a filter
// that is too long keeps its end, where it is typed.
func (c *topCanvas) foot(keys [][2]string) {
	x := 0
	for _, key := range keys {
		end := x + utf8.RuneCountInString(key[0]+" "+key[1])
		if room := c.width - x - utf8.RuneCountInString(key[0]) - 1; end > c.width {
			if x > 0 {
				return
			}
			key[1] = shorten(key[1], room)
		}
		c.text(x, c.height-1, key[0], lookBold)
		c.text(x+utf8.RuneCountInString(key[0])+1, c.height-1, printable(key[1]), lookPlain)
		x = end + 2
	}
}

// line draws spans two blanks apart. What there is no room for is cut off.
func (c *topCanvas) line(y int, spans []topSpan) {
	x := 0
	for _, span := range spans {
		if x >= c.width {
			return
		}
		text := cut(printable(span.text), c.width-x)
		c.text(x, y, text, span.look)
		x += utf8.RuneCountInString(text) + 2
	}
}

// text draws text; what is not on the screen is not drawn.
func (c *topCanvas) text(x, y int, text string, look topLook) {
	for _, r := range text {
		if x < c.width && y < c.height {
			c.frame[y*c.width+x] = topPlace{r, look}
		}
		x++
	}
}

// style turns a look into what the terminal can do.
func (c *topCanvas) style(look topLook) tcell.Style {
	s := tcell.StyleDefault
	colored := bool(c.palette) && c.screen.Colors() > 0
	switch look {
	case lookBold:
		return s.Bold(true)
	case lookHead, lookSelected:
		return s.Reverse(true)
	case lookFaint:
		return s.Dim(colored)
	case lookWarn:
		if colored {
			return s.Foreground(tcell.PaletteColor(3)) // yellow
		}
		return s.Bold(true)
	case lookBad:
		if colored {
			return s.Foreground(tcell.PaletteColor(1)).Bold(true) // red
		}
		return s.Bold(true)
	}
	return s
}
