package scheduler

import (
	"net/netip"
	"slices"
)

// drainer is a model whose table names the server of a client, whatever its
// weight: the clients of a draining server are led to others, as by no order of the
// kernel, which has no drain and refuses those of a server of weight 0.
type drainer interface {
	// drain says whether the server is being drained; its weight is 0 then.
	drain(server netip.AddrPort, draining bool)
}

// relieved returns the table that build makes of the servers, but for the slots of
// draining ones: theirs are as if those were not there. So no other client moves.
func relieved(servers []Entry, build func([]Entry) []int) []int {
	isDraining := func(e Entry) bool { return e.Draining }
	if !slices.ContainsFunc(servers, isDraining) {
		return build(servers)
	}
	before := slices.Clone(servers)
	var kept []Entry
	var places []int // of the kept ones among all
	for i := range before {
		if e := &before[i]; e.Draining {
			e.Weight = e.LastWeight
		} else {
			kept, places = append(kept, *e), append(places, i)
		}
	}
	table, without := build(before), build(kept)
	for slot, i := range table {
		if i < 0 || !before[i].Draining {
			continue
		}
		if table[slot] = -1; without[slot] >= 0 {
			table[slot] = places[without[slot]]
		}
	}
	return table
}
