package api

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// connectionForm is the way connections are shown.
type connectionForm struct {
	timed bool // the data plane knows their ages
}

func (h *Handler) form() connectionForm { return connectionForm{timed: h.director.HasTable()} }

// model returns the connection as the generated model.
func (f connectionForm) model(c *conntrack.Connection) *Connection {
	model := &Connection{
		Protocol: c.Protocol.String(), Client: c.Client.String(), Virtual: c.Virtual.String(),
		Server: c.Server.String(), Method: c.Method, State: c.State.String(), Proven: c.Proven,
		Template: c.Template, UnderTemplate: c.UnderTemplate, Mark: c.Mark, Engine: c.Engine, EngineData: c.EngineData,
		Expires: Duration(c.Expires.Truncate(time.Millisecond)),
	}
	if c.Local.IsValid() {
		model.Local = c.Local.String()
	}
	if c.Template {
		model.Prefix, model.Controlled = new(c.Prefix), new(c.Controlled)
	}
	if f.timed {
		model.Age, model.Idle = new(Duration(c.Age.Truncate(time.Millisecond))), new(Duration(c.Idle.Truncate(time.Millisecond)))
	}
	if t := c.Traffic; t != nil {
		model.Traffic = &ConnectionTraffic{In: Traffic{Packets: t.InPackets, Bytes: t.InBytes}, Out: Traffic{Packets: t.OutPackets, Bytes: t.OutBytes}}
	}
	return model
}

// appendConnection appends the model as json.Marshal writes it, at a tenth of the
// time: a table has a million of them.
func (f connectionForm) appendConnection(b []byte, c *conntrack.Connection) []byte {
	b = append(append(b, `{"protocol":"`...), c.Protocol.String()...)
	b = appendAddrPort(append(b, `","client":"`...), c.Client)
	b = appendAddrPort(append(b, `","virtual":"`...), c.Virtual)
	b = appendAddrPort(append(b, `","server":"`...), c.Server)
	b = appendText(append(b, `","method":`...), c.Method)
	if c.Local.IsValid() {
		b = append(c.Local.AppendTo(append(b, `,"local":"`...)), '"')
	}
	b = append(append(b, `,"state":"`...), c.State.String()...)
	b = strconv.AppendBool(append(b, `","proven":`...), c.Proven)
	if c.Template {
		b = strconv.AppendUint(append(b, `,"template":true,"prefix":`...), uint64(c.Prefix), 10)
		b = strconv.AppendUint(append(b, `,"controlled":`...), uint64(c.Controlled), 10)
	}
	if c.Mark != 0 {
		b = strconv.AppendUint(append(b, `,"mark":`...), uint64(c.Mark), 10)
	}
	if c.Engine != "" {
		b = appendText(append(b, `,"engine":`...), c.Engine)
	}
	if c.EngineData != "" {
		b = appendText(append(b, `,"engine-data":`...), c.EngineData)
	}
	if c.UnderTemplate {
		b = append(b, `,"under-template":true`...)
	}
	b = appendMillis(append(b, `,"expires":"`...), c.Expires)
	if f.timed {
		b = appendMillis(append(b, `","age":"`...), c.Age)
		b = appendMillis(append(b, `","idle":"`...), c.Idle)
	}
	b = append(b, '"')
	if t := c.Traffic; t != nil {
		b = appendTraffic(append(b, `,"traffic":{"in":`...), t.InPackets, t.InBytes)
		b = append(appendTraffic(append(b, `,"out":`...), t.OutPackets, t.OutBytes), '}')
	}
	return append(b, '}')
}

func appendTraffic(b []byte, packets, bytes uint64) []byte {
	b = strconv.AppendUint(append(b, `{"packets":`...), packets, 10)
	return append(strconv.AppendUint(append(b, `,"bytes":`...), bytes, 10), '}')
}

// appendAddrPort appends what String returns: AppendTo has nothing for one that is
// invalid.
func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, a.String()...)
	}
	return a.AppendTo(b)
}

// appendText appends a JSON string.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, _ := json.Marshal(text) // a string has no error
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// appendMillis appends what String returns for the duration cut to milliseconds.
func appendMillis(b []byte, d time.Duration) []byte {
	millis := d.Milliseconds()
	if millis < 0 {
		b = append(b, '-')
		millis = -millis
	}
	switch {
	case millis == 0:
		return append(b, "0s"...)
	case millis < 1000:
		return append(strconv.AppendInt(b, millis, 10), "ms"...)
	}
	seconds := millis / 1000
	if minutes := seconds / 60; minutes > 0 {
		if minutes >= 60 {
			b = append(strconv.AppendInt(b, minutes/60, 10), 'h')
		}
		b = append(strconv.AppendInt(b, minutes%60, 10), 'm')
	}
	b = strconv.AppendInt(b, seconds%60, 10)
	if part := millis % 1000; part > 0 {
		b = append(b, '.', byte('0'+part/100))
		if part%100 > 0 {
			b = append(b, byte('0'+part/10%10))
		}
		if part%10 > 0 {
			b = append(b, byte('0'+part%10))
		}
	}
	return append(b, 's')
}

// appendProblem appends the line that ends a list which broke off.
func appendProblem(b []byte, p *Problem) []byte {
	return append(append(append(b, `{"problem":`...), p.text()...), "}\n"...)
}

// appendChange appends the model ConnectionChange.
func (f connectionForm) appendChange(b []byte, c *director.ConnectionChange) []byte {
	b = append(append(b, `{"what":"`...), c.What...)
	b = append(append(b, `","service":"`...), c.Service.String()...)
	b = append(b, '"')
	if c.Lost > 0 {
		b = strconv.AppendUint(append(b, `,"lost":`...), c.Lost, 10)
	}
	return append(f.appendConnection(append(b, `,"connection":`...), &c.Connection), '}')
}
