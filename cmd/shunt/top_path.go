package main

import (
	"fmt"
	"strings"
)

// pathLine says which view this is, and how it is filtered and sorted.
func (m *topModel) pathLine(rows int) []topSpan {
	v := m.view()
	line := []topSpan{{m.path(), lookBold}}
	if m.paused {
		line = append(line, topSpan{"PAUSED", lookWarn})
	}
	if v.filter != "" {
		line = append(line, topSpan{fmt.Sprintf("%d match /%s", rows, v.filter), lookWarn})
	}
	if v.kind == viewConnections && m.shown.list.isOf(v) && len(m.shown.list.connections) >= topConnections {
		line = append(line, topSpan{fmt.Sprintf("the first %d found", topConnections), lookWarn})
	}
	if v.kind == viewHelp {
		return line
	}
	by := "by " + v.columns()[v.sort].head
	if v.reverse {
		by += " reversed"
	}
	return append(line, plainSpan("%s", by))
}

// path names the views that lead to this one.
func (m *topModel) path() string {
	v := m.view()
	name := v.service
	if service, ok := m.shown.service(v.service); ok && service.Name != "" {
		name = service.Name
	}
	switch v.kind {
	case viewServices:
		return "services"
	case viewServers:
		return name + " > servers"
	case viewConnections:
		return strings.ReplaceAll(name+" > "+v.server+" > connections", " >  > ", " > ")
	case viewDrops:
		return "packet events"
	default:
		return "help"
	}
}

// emptyText says why there are no rows.
func (m *topModel) emptyText() string {
	v := m.view()
	_, there := m.shown.service(v.service)
	switch {
	case v.service != "" && !there:
		return v.service + " is gone"
	case v.kind == viewConnections && !m.shown.list.isOf(v):
		return "asking for connections"
	case v.kind == viewConnections && m.shown.list.err != nil:
		return m.shown.list.err.Error()
	case v.filter != "":
		return fmt.Sprintf("nothing matches %q", v.filter)
	case v.kind == viewServices:
		return "no services: `shunt service add` makes one"
	case v.kind == viewServers:
		return "no servers: `shunt server add` makes one"
	case v.kind == viewDrops:
		return "no packets counted yet"
	default:
		return "no connections"
	}
}

// footLine is the line of keys.
func (m *topModel) footLine() [][2]string {
	v := m.view()
	if m.editing {
		return [][2]string{{"filter:", v.filter + "_"}, {"Enter", "keeps it"}, {"Esc", "takes it away"}}
	}
	keys := [][2]string{{"h", "help"}, {"q", "quit"}}
	if len(m.views) > 1 {
		keys = append(keys, [2]string{"Esc", "back"})
	}
	switch v.kind {
	case viewServices:
		keys = append(keys, [2]string{"Enter", "servers"}, [2]string{"C", "conns"}, [2]string{"D", "drops"})
	case viewServers:
		keys = append(keys, [2]string{"Enter", "conns"}, [2]string{"C", "all conns"}, [2]string{"D", "drops"})
	case viewConnections:
		keys = append(keys, [2]string{"D", "drops"})
	case viewHelp:
		return keys
	}
	return append(keys, [2]string{"/", "filter"}, [2]string{"< >", "sort"}, [2]string{"r", "reverse"}, [2]string{"Space", "pause"})
}
