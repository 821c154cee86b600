package main

import (
	"slices"
	"time"
)

// topModel is everything that is shown, and what the user made of it. It knows
// neither the terminal nor the daemon.
type topModel struct {
	host     string
	interval time.Duration
	paused   bool
	err      error // why there is nothing newer than what is shown

	last   topReading  // the newest, for the rates of the next
	latest topSnapshot // differs from shown while paused
	shown  topSnapshot

	views   []*topView // the last one is on the screen; the first stays
	editing bool       // its filter is being typed
	page    int        // rows that the screen has room for
}

func newTopModel(host string, interval time.Duration) *topModel {
	return &topModel{host: host, interval: interval, views: []*topView{newTopView(viewServices, "", "")}, page: 1}
}

// accept takes a reading.
func (m *topModel) accept(r topReading) {
	m.err = nil
	m.latest = topChanges(m.last, r)
	m.last = r
	switch {
	case !m.paused:
		m.shown = m.latest
	case r.list.isOf(m.view()) && !m.shown.list.isOf(m.view()): // opened since
		m.shown.list = r.list
	}
}

// fail notes that the daemon could not be read. What is shown stays.
func (m *topModel) fail(err error) { m.err = err }

// pause holds what is shown, or goes on with the newest.
func (m *topModel) pause() {
	m.paused = !m.paused
	if !m.paused {
		m.shown = m.latest
	}
}

// view is the one on the screen.
func (m *topModel) view() *topView { return m.views[len(m.views)-1] }

// open puts a view on the screen.
func (m *topModel) open(v *topView) { m.views = append(m.views, v) }

// back returns to the view before; false if there is none.
func (m *topModel) back() bool {
	if len(m.views) == 1 {
		return false
	}
	m.views = m.views[:len(m.views)-1]
	return true
}

// table returns the rows of the view and which one is selected; -1 if there are
// none. If the selected row is gone, the one in its place is.
func (m *topModel) table() (rows []topRow, selected int) {
	v := m.view()
	rows = filterRows(v.rows(m.shown), v.filter)
	if v.kind != viewHelp {
		sortRows(rows, v.columns(), v.sort, v.reverse)
	}
	if len(rows) == 0 {
		return nil, -1
	}
	if v.selected == "" {
		return rows, 0
	}
	selected = slices.IndexFunc(rows, func(r topRow) bool { return r.key == v.selected })
	if selected < 0 {
		selected = min(v.index, len(rows)-1)
		v.selected = rows[selected].key
	}
	v.index = selected
	return rows, selected
}

// scroll returns the first row on the screen, so that the selected one is on it.
func (m *topModel) scroll(rows, selected int) int {
	v := m.view()
	v.offset = min(v.offset, selected)
	v.offset = max(v.offset, selected-m.page+1, 0)
	v.offset = max(0, min(v.offset, rows-m.page))
	return v.offset
}

// move selects another row.
func (m *topModel) move(by int) {
	rows, selected := m.table()
	if selected < 0 {
		return
	}
	m.view().index = max(0, min(selected+by, len(rows)-1))
	m.view().selected = rows[m.view().index].key
}

// first selects the first row, whichever that becomes.
func (m *topModel) first() { m.view().selected, m.view().index = "", 0 }

// enter goes into the selected row; false if nothing is in it.
func (m *topModel) enter() bool {
	row, ok := m.keep()
	if !ok {
		return false
	}
	switch v := m.view(); v.kind {
	case viewServices:
		m.open(newTopView(viewServers, row, ""))
	case viewServers:
		m.open(newTopView(viewConnections, v.service, row))
	default:
		return false
	}
	return true
}

// connections opens those of the service that is selected or on the screen.
func (m *topModel) connections() bool {
	switch v := m.view(); v.kind {
	case viewServices:
		if row, ok := m.keep(); ok {
			m.open(newTopView(viewConnections, row, ""))
			return true
		}
	case viewServers:
		m.open(newTopView(viewConnections, v.service, ""))
		return true
	}
	return false
}

// keep makes the selection last, so that it is there on coming back, and returns
// the row's key.
func (m *topModel) keep() (key string, ok bool) {
	rows, selected := m.table()
	if selected < 0 {
		return "", false
	}
	v := m.view()
	v.selected, v.index = rows[selected].key, selected
	return v.selected, true
}

// sortBy sorts by the column with the letter; false if there is none.
func (m *topModel) sortBy(letter rune) bool {
	column := m.view().column(letter)
	if column < 0 {
		return false
	}
	m.sortColumn(column)
	return true
}

// shiftSort sorts by the next column, or the one before.
func (m *topModel) shiftSort(by int) {
	if v := m.view(); v.kind != viewHelp {
		m.sortColumn((v.sort + by + len(v.columns())) % len(v.columns()))
	}
}

func (m *topModel) sortColumn(column int) {
	v := m.view()
	if v.sort != column {
		v.sort, v.reverse = column, false
	}
}

// topIntervals are those that + and - go through.
var topIntervals = []time.Duration{
	minWatch, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

// slower reads less often, and faster more often.
func (m *topModel) slower() {
	for _, longer := range topIntervals {
		if longer > m.interval {
			m.interval = longer
			return
		}
	}
}

func (m *topModel) faster() {
	for _, shorter := range slices.Backward(topIntervals) {
		if shorter < m.interval {
			m.interval = shorter
			return
		}
	}
}
