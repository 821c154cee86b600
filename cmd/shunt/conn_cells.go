package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// connectionCells are what top shows of a connection; those of a template say for
// which network and how many connections it is.
func connectionCells(c api.Connection) []string {
	state, client := c.State, c.Client
	if c.Template {
		client = clientNetwork(c)
		state = "TEMPLATE"
		if c.Controlled != nil {
			state += fmt.Sprintf(" of %d", *c.Controlled)
		}
	}
	if !c.Proven {
		state += "*"
	}
	protocol, virtual := c.Protocol, c.Virtual
	if c.Mark != 0 { // of whatever protocol, wherever it goes
		protocol, virtual = "-", markURL(c)
	}
	cells := []string{protocol, minutes(c.Expires), state, client, virtual, c.Server, c.Method}
	if c.Engine != "" {
		cells = append(cells, c.Engine+" "+strconv.Quote(c.EngineData)) // what clients send
	}
	return cells
}

// markURL is the URL of the service of the connection's mark.
func markURL(c api.Connection) string {
	virtual, err := netip.ParseAddrPort(c.Virtual)
	if err != nil {
		return c.Virtual
	}
	return director.ServiceKey{Mark: c.Mark, Address: virtual}.String()
}

// clientNetwork is the network that a template is for.
func clientNetwork(c api.Connection) string {
	client, err := netip.ParseAddrPort(c.Client)
	if err != nil || c.Prefix == nil {
		return c.Client
	}
	return netip.PrefixFrom(client.Addr(), int(*c.Prefix)).String()
}

// compareAddress orders addresses with ports by number.
func compareAddress(a, b string) int {
	x, errX := netip.ParseAddrPort(a)
	y, errY := netip.ParseAddrPort(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return x.Compare(y)
}
