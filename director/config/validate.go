package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
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
func (l *loader) validate(cfg Config) {
	var origins []origin
	for _, d := range l.files {
		if d.unkept > 0 {
			return // there is more to correct than is told already
		}
		for i := range d.cfg.State.Services {
			origins = append(origins, origin{d, i})
		}
	}
	state := director.State{Services: slices.Clone(cfg.State.Services)}
	for i := range state.Services {
		state.Services[i] = state.Services[i].Normalize()
	}
	state.Timeouts = conntrack.DefaultTimeouts().Merge(cfg.State.Timeouts)
	for _, problem := range director.Problems(state.Validate()) {
		if problem.Service >= 0 { // timeouts were checked as they were read
			at := origins[problem.Service]
			at.file.problem(problem, at, origins, state.Services[problem.Service])
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

// problem notes a problem of the service that the file has at the origin.
func (d *decoder) problem(problem *director.ProblemError, at origin, origins []origin, service director.Service) {
	path := at.path()
	if problem.Server >= 0 {
		path += fmt.Sprintf(".servers[%d]", problem.Server)
	}
	if problem.Field != "" {
		path += "." + problem.Field
	}
	keyless := service.Key == (director.ServiceKey{})
	if d.broken[path] || keyless && problem.Field == "address" {
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
