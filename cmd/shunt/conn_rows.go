package main

import (
	"bytes"
	"cmp"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// connectionRows prints connections as rows of a table. It appends bytes: a table
// has millions of rows.
type connectionRows struct {
	timed   bool // the ages are known
	counted bool // some have their traffic
	local   bool // for some the server sees another address than the client's
	header  []string
	widths  []int
	cells   []byte // of one row
	ends    []int  // where the cells end
	row     []byte
}

// fit makes columns for the connections.
func (r *connectionRows) fit(connections []conntrack.Connection) {
	r.header = []string{"PROTO", "EXPIRES"}
	r.counted = slices.ContainsFunc(connections, func(c conntrack.Connection) bool { return c.Traffic != nil })
	if r.timed {
		r.header = append(r.header, "AGE", "IDLE")
	}
	r.header = append(r.header, "STATE", "CLIENT", "VIRTUAL", "SERVER", "METHOD")
	r.local = slices.ContainsFunc(connections, func(c conntrack.Connection) bool { return c.Local.IsValid() })
	if r.local {
		r.header = append(r.header, "LOCAL")
	}
	if r.counted {
		r.header = append(r.header, "PACKETS", "BYTES")
	}
	r.widths = fit(nil, append(slices.Clone(r.header), "")) // the last column has an engine's data, and no heading
	for i := range connections {
		r.render(&connections[i])
		start := 0
		for column, end := range r.ends {
			if column < len(r.widths) {
				r.widths[column] = max(r.widths[column], end-start)
			}
			start = end
		}
	}
}

// printAll prints the heading and the connections, in columns that fit them.
func (r *connectionRows) printAll(w io.Writer, connections []conntrack.Connection) error {
	r.fit(connections)
	if _, err := io.WriteString(w, line(r.widths, r.header)); err != nil {
		return err
	}
	for i := range connections {
		if err := r.print(w, &connections[i]); err != nil {
			return err
		}
	}
	return nil
}

// print prints one connection.
func (r *connectionRows) print(w io.Writer, c *conntrack.Connection) error {
	r.render(c)
	r.row = r.row[:0]
	start := 0
	for column, end := range r.ends {
		r.row = append(r.row, r.cells[start:end]...)
		for n := r.widths[column] - (end - start) + 2; n > 0; n-- {
			r.row = append(r.row, ' ')
		}
		start = end
	}
	_, err := w.Write(append(bytes.TrimRight(r.row, " "), '\n'))
	return err
}

// render makes the cells of a connection; those of a template say for which network
// and how many connections it is.
func (r *connectionRows) render(c *conntrack.Connection) {
	r.ends = r.ends[:0]
	b := r.cells[:0]
	end := func() { r.ends = append(r.ends, len(b)) }
	protocol, virtual := c.Protocol.String(), c.Virtual
	if c.Mark != 0 { // of whatever protocol, wherever it goes
		protocol = "-"
	}
	b = append(b, protocol...)
	end()
	b = appendMinutes(b, c.Expires)
	end()
	if r.timed {
		b = appendSeconds(b, c.Age)
		end()
		b = appendSeconds(b, c.Idle)
		end()
	}
	b = appendState(b, c)
	end()
	if c.Template {
		b = netip.PrefixFrom(c.Client.Addr(), int(c.Prefix)).AppendTo(b)
	} else {
		b = c.Client.AppendTo(b)
	}
	end()
	if c.Mark != 0 {
		b = append(b, director.ServiceKey{Mark: c.Mark, Address: virtual}.String()...)
	} else {
		b = virtual.AppendTo(b)
	}
	end()
	b = c.Server.AppendTo(b)
	end()
	b = append(b, c.Method...)
	end()
	if r.local {
		if c.Local.IsValid() {
			b = c.Local.AppendTo(b)
		} else {
			b = append(b, '-')
		}
		end()
	}
	if r.counted {
		b = r.appendTraffic(b, c.Traffic)
	}
	if c.Engine != "" {
		b = append(append(b, c.Engine...), ' ')
		b = strconv.AppendQuote(b, c.EngineData) // what clients send
		end()
	}
	r.cells = b
}

// appendTraffic appends both cells of traffic, to the server and back, or dashes.
func (r *connectionRows) appendTraffic(b []byte, t *conntrack.Traffic) []byte {
	if t == nil {
		b = append(b, '-')
		r.ends = append(r.ends, len(b))
		b = append(b, '-')
		r.ends = append(r.ends, len(b))
		return b
	}
	b = strconv.AppendUint(b, t.InPackets, 10)
	b = strconv.AppendUint(append(b, '/'), t.OutPackets, 10)
	r.ends = append(r.ends, len(b))
	b = append(append(append(b, size(t.InBytes)...), '/'), size(t.OutBytes)...)
	r.ends = append(r.ends, len(b))
	return b
}

func appendState(b []byte, c *conntrack.Connection) []byte {
	if c.Template {
		b = strconv.AppendUint(append(b, "TEMPLATE of "...), uint64(c.Controlled), 10)
	} else {
		b = append(b, c.State.String()...)
	}
	if !c.Proven {
		b = append(b, '*')
	}
	return b
}

// appendMinutes appends what minutes returns.
func appendMinutes(b []byte, d time.Duration) []byte {
	seconds := max(int64(d/time.Second), 0)
	b = appendTwoDigits(b, seconds/60)
	return appendTwoDigits(append(b, ':'), seconds%60)
}

func appendTwoDigits(b []byte, n int64) []byte {
	if n < 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, n, 10)
}

// appendSeconds appends what age returns.
func appendSeconds(b []byte, d time.Duration) []byte {
	seconds := max(int64(d/time.Second), 0)
	if seconds >= 3600 {
		b = append(strconv.AppendInt(b, seconds/3600, 10), 'h')
	}
	if seconds >= 60 {
		b = append(strconv.AppendInt(b, seconds/60%60, 10), 'm')
	}
	return append(strconv.AppendInt(b, seconds%60, 10), 's')
}

// compareConnections orders by client, virtual address and protocol.
func compareConnections(a, b conntrack.Connection) int {
	return cmp.Or(a.Client.Compare(b.Client), a.Virtual.Compare(b.Virtual), cmp.Compare(a.Protocol, b.Protocol))
}
