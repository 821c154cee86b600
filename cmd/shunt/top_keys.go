package main

import (
	"slices"
	"unicode"

	"github.com/gdamore/tcell/v2"
)

// topAction is what a key asks of the loop.
type topAction int

// The actions.
const (
	topDraw   topAction = iota
	topAsk              // read the daemon at once
	topRedraw           // draw everything anew
	topSuspend
	topQuit
)

// topKeys are the keys that every view has, for the help.
var topKeys = [][2]string{
	{"Up Down PgUp PgDn End", "select a row, which stays selected when rows move"},
	{"Home", "select the first row, whichever that becomes"},
	{"Enter Right", "go into it: a service's servers, a server's connections"},
	{"Esc Left", "go back; Esc takes the filter away first"},
	{"C", "the connections of the service"},
	{"D", "drops and all other packet events"},
	{"/", "filter by name, URL, address; connections by client's prefix"},
	{"< >", "sort by another column, or press its letter; r reverses"},
	{"+ -", "read less often, more often"},
	{"Space", "pause"},
	{"h ?", "this help"},
	{"q ^C", "quit"},
}

// helpRows are the keys, and the columns of the kind of view.
func helpRows(kind topKind) []topRow {
	rows := make([]topRow, 0, len(topKeys))
	add := func(key, meaning string) {
		rows = append(rows, topRow{key: key, cells: []topCell{textCell(key), textCell(meaning)}, match: key + " " + meaning})
	}
	for _, k := range topKeys {
		add(k[0], k[1])
	}
	for _, c := range topColumns[kind] {
		add(string(c.letter), c.head+": "+c.help)
	}
	return rows
}

// key does what the key asks.
func (m *topModel) key(e *tcell.EventKey) topAction {
	switch e.Key() {
	case tcell.KeyCtrlC:
		return topQuit
	case tcell.KeyCtrlL:
		return topRedraw
	case tcell.KeyCtrlZ:
		return topSuspend
	case tcell.KeyUp:
		m.move(-1)
	case tcell.KeyDown:
		m.move(1)
	case tcell.KeyPgUp:
		m.move(-m.page)
	case tcell.KeyPgDn:
		m.move(m.page)
	case tcell.KeyHome:
		m.first()
	case tcell.KeyEnd:
		m.move(len(m.view().rows(m.shown)))
	default:
		if m.editing {
			return m.edit(e)
		}
		return m.command(e)
	}
	return topDraw
}

// edit types the filter.
func (m *topModel) edit(e *tcell.EventKey) topAction {
	v := m.view()
	switch e.Key() {
	case tcell.KeyEnter:
		m.editing = false
		return m.asked(true)
	case tcell.KeyEscape:
		v.filter, m.editing = "", false
		return m.asked(true)
	case tcell.KeyBackspace, tcell.KeyBackspace2:
		if runes := []rune(v.filter); len(runes) > 0 {
			v.filter = string(runes[:len(runes)-1])
		}
	case tcell.KeyCtrlU:
		v.filter = ""
	case tcell.KeyRune:
		if unicode.IsPrint(e.Rune()) {
			v.filter += string(e.Rune())
		}
	}
	return topDraw
}

// command is a key while nothing is typed.
func (m *topModel) command(e *tcell.EventKey) topAction {
	v := m.view()
	switch e.Key() {
	case tcell.KeyEnter, tcell.KeyRight:
		return m.asked(m.enter())
	case tcell.KeyLeft:
		return m.asked(m.back())
	case tcell.KeyEscape:
		if v.filter != "" {
			v.filter = ""
			return m.asked(true)
		}
		return m.asked(m.back())
	case tcell.KeyRune:
		return m.letter(e.Rune())
	}
	return topDraw
}

func (m *topModel) letter(r rune) topAction {
	v := m.view()
	switch r {
	case 'q':
		return topQuit
	case 'h', '?':
		if v.kind == viewHelp {
			m.back()
			break
		}
		help := newTopView(viewHelp, "", "")
		help.help = v.kind
		m.open(help)
	case 'C':
		return m.asked(m.connections())
	case 'D':
		if !slices.ContainsFunc(m.views, func(v *topView) bool { return v.kind == viewDrops }) {
			m.open(newTopView(viewDrops, "", ""))
		}
	case '/':
		m.editing = true
	case '<':
		m.shiftSort(-1)
	case '>':
		m.shiftSort(1)
	case 'r':
		v.reverse = !v.reverse
	case '+', '=':
		m.slower()
	case '-', '_':
		m.faster()
	case ' ':
		m.pause()
	default:
		m.sortBy(r)
	}
	return topDraw
}

// asked reads the daemon at once if what is on the screen has changed to a list
// of connections.
func (m *topModel) asked(changed bool) topAction {
	if changed && m.view().kind == viewConnections {
		return topAsk
	}
	return topDraw
}
