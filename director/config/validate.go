package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
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
	switch problem.Field {
	case "access":
		// The text begins with the prefix that it is about.
		prefix, _, _ := strings.Cut(text, " ")
		path = prefixPath(path, prefix)
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
	d.fail(d.place(path), problem.Kind, where+": "+relocated(text, at, origins))
}

// elsewhere is how a text ends that names another service of the state.
var elsewhere = regexp.MustCompile(`services\[(\d+)\] already$`)

// relocated says where the service that a text names stands in the files.
func relocated(text string, at origin, origins []origin) string {
	found := elsewhere.FindStringSubmatchIndex(text)
	if found == nil {
		return text
	}
	i, err := strconv.Atoi(text[found[2]:found[3]])
	if err != nil || i >= len(origins) {
		return text
	}
	first := origins[i]
	name := first.path()
	if first.file != at.file {
		name = first.file.file
		if n := first.file.place(first.path()); n != nil {
			name += fmt.Sprintf(":%d", n.Line)
		}
	}
	return text[:found[0]] + name + " already"
}
