package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// origin is where a service of the whole comes from.
type origin struct {
	file  *decoder
	index int // in the file
}

func (o origin) path() string { return fmt.Sprintf("services[%d]", o.index) }

// from says where the service stands, to a reader of another one: in that one's
// file by its place in the list, in others by file and line.
func (o origin) from(reader origin) string {
	if o.file == reader.file {
		return o.path()
	}
	if n := o.file.place(o.path()); n != nil {
		return fmt.Sprintf("%s:%d", o.file.file, n.Line)
	}
	return o.file.file
}

// validate adds what only the whole shows, at the place it comes from.
// settings is the file of the director section, nil if there is none.
func (l *loader) validate(cfg Config, settings *decoder) {
	var origins []origin
	for _, d := range l.files {
		if d.unkept > 0 {
			return // there is more to correct than is told already
		}
		for i := range d.cfg.State.Services {
			origins = append(origins, origin{d, i})
		}
	}
	// Normalized one by one: their indices are those of the text.
	state := director.State{Services: slices.Clone(cfg.State.Services), Sync: slices.Clone(cfg.State.Sync)}
	for i := range state.Services {
		state.Services[i] = state.Services[i].Normalize()
	}
	for i := range state.Sync {
		state.Sync[i] = state.Sync[i].Normalize()
	}
	state.Timeouts = conntrack.DefaultTimeouts().Merge(cfg.State.Timeouts)
	for _, problem := range director.Problems(errors.Join(state.Validate(), l.lacks(state))) {
		if problem.Service >= 0 {
			at := origins[problem.Service]
			at.file.problem(problem, at, origins, state.Services[problem.Service])
		} else if strings.HasPrefix(problem.Where, "sync") { // timeouts were checked as they were read
			settings.syncProblem(problem)
		}
	}
	servers := 0
	for i, service := range cfg.State.Services {
		if servers += len(service.Servers); servers > int(cfg.Director.Limits.Servers) {
			d := origins[i].file
			d.errorAt(d.place(origins[i].path()+".servers"),
				"%d servers up to here: director.limits.servers is %d", servers, cfg.Director.Limits.Servers)
			break
		}
	}
	if n, limit := len(cfg.State.Services), int(cfg.Director.Limits.Services); n > limit {
		d := origins[limit].file
		d.errorAt(d.place(origins[limit].path()), "%d services: director.limits.services is %d", n, limit)
	}
}

// lacks returns what the state has and the data plane has not, if one is named.
func (l *loader) lacks(state director.State) error {
	if l.plane == "" {
		return nil
	}
	features, err := director.FeaturesOf(l.plane)
	if err != nil {
		return nil // an unknown one was refused as it was read
	}
	return features.Check(state)
}

// syncProblem notes a problem of a sync daemon, or of all.
func (d *decoder) syncProblem(problem *director.ProblemError) {
	path := "director." + problem.Where
	if path != "director.sync" {
		path += "." + problem.Field
	}
	if !d.broken[path] {
		d.fail(d.place(path), problem.Kind, path+": "+problem.Text)
	}
}

// unused returns a warning for each setting that the data plane does not have.
func (d *decoder) unused(plane string) []string {
	if plane != director.PlaneIPVS {
		return nil
	}
	var all []string
	for _, s := range settings {
		path := "director." + s.key
		if n := d.places[path]; s.xdp && n != nil {
			all = append(all, fmt.Sprintf("%s:%d:%d: %s: the %s data plane does not use it", d.file, n.Line, n.Column, path, plane))
		}
	}
	return all
}

// poolless returns a warning for the first server of each family whose method is
// fullnat where the settings have no address to stand in for clients'. No error: the
// services of the store count after the first start, and this file is read at each.
func (l *loader) poolless(settings Settings) (all []string) {
	if settings.Dataplane != director.PlaneXDP {
		return nil
	}
	var has [2]bool
	for _, p := range settings.LocalAddresses {
		has[familyOf(p)] = true
	}
	for _, d := range l.files {
		for i, service := range d.cfg.State.Services {
			for j, server := range service.Servers {
				family := familyOf(netip.PrefixFrom(server.Address.Addr(), 0))
				if server.Method != realserver.FullNAT || has[family] {
					continue
				}
				has[family] = true // once is enough
				path := fmt.Sprintf("services[%d].servers[%d]", i, j)
				n := d.place(path)
				all = append(all, fmt.Sprintf("%s:%d:%d: %s: method fullnat, and director.fullnat.addresses has no %s address: the data plane refuses it",
					d.file, n.Line, n.Column, path, familyNames[family]))
			}
		}
	}
	return all
}

// quorumless returns a warning for each service whose servers do not come to its quorum,
// or, once it is lost, not to what has it back: sorry servers would stand in for good.
// Leases may add what is missing.
func (l *loader) quorumless() (all []string) {
	for _, d := range l.files {
		for i, service := range d.cfg.State.Services {
			h := &service.Health
			var weight uint64
			for _, server := range service.Servers {
				weight += uint64(server.Weight)
			}
			needed, what := uint64(h.Quorum), "quorum"
			if h.Quorum > 0 && needed <= weight {
				needed, what = needed+uint64(h.Hysteresis), "hysteresis"
			}
			if h.Quorum == 0 || h.Pool != "" || needed <= weight {
				continue
			}
			path := fmt.Sprintf("services[%d].health.%s", i, what)
			n := d.place(path)
			text := fmt.Sprintf("the quorum of %d is never there: all servers have a weight of %d", needed, weight)
			if what == "hysteresis" {
				text = fmt.Sprintf("once lost, the quorum is never back: that takes a weight of %d, and all servers have %d", needed, weight)
			}
			all = append(all, fmt.Sprintf("%s:%d:%d: %s: %s", d.file, n.Line, n.Column, path, text))
		}
	}
	return all
}

// asWritten returns the path of a check's part as the file has it: one check may stand
// without a list.
func (d *decoder) asWritten(path string) string {
	if alone := strings.Replace(path, ".check[0]", ".check", 1); d.places[strings.SplitAfter(path, ".check[0]")[0]] == nil {
		return alone
	}
	return path
}

// inBroken reports whether the path is in a check, or in something else of a service's
// health, that could not be read as it is written.
func (d *decoder) inBroken(path string) bool {
	for _, part := range []string{".check", ".health", ".sorry"} {
		if strings.Contains(path, part) {
			for broken := range d.broken {
				if strings.HasPrefix(broken, path[:strings.Index(path, part)]+part) {
					return true
				}
			}
		}
	}
	return false
}

// problem notes a problem of the service that the file has at the origin.
func (d *decoder) problem(problem *director.ProblemError, at origin, origins []origin, service director.Service) {
	path := at.path()
	if problem.Server >= 0 {
		path += fmt.Sprintf(".servers[%d]", problem.Server)
	}
	if problem.Field != "" {
		path += "." + problem.Field
	}
	path = d.asWritten(path)
	keyless := service.Key == (director.ServiceKey{})
	if d.broken[path] || d.inBroken(path) || keyless && problem.Field == "address" {
		return // which port is the service's is not known
	}
	text := problem.Text
	if problem.Other >= 0 {
		text = problem.Message(origins[problem.Other].from(at))
	}
	switch problem.Field {
	case "access":
		if problem.Prefix.IsValid() {
			path = prefixPath(path, problem.Prefix.String())
		}
	case "scheduler":
		var names []string
		for _, s := range director.Schedulers() {
			names = append(names, string(s))
		}
		if problem.Kind == director.ErrInvalid {
			text += didYouMean(string(service.Scheduler), names)
		}
	case "vip":
		text += didYouMean(string(service.VIP), []string{string(director.VIPManaged), string(director.VIPExternal)})
	}
	where := strings.Replace(problem.Where, fmt.Sprintf("services[%d]", problem.Service), at.path(), 1)
	if keyless && service.Name == "" {
		where = strings.Replace(where, " "+service.Key.String(), "", 1)
	}
	d.fail(d.place(path), problem.Kind, where+": "+text)
}
