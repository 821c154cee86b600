package translation

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Result is what a translation comes to.
type Result struct {
	// State is normalized and valid, for the data plane ipvs; another may lack
	// something of it (director.Features.Check).
	State director.State
	Notes []Note // in the order of the text, file by file as they were read
}

// Service is a service with the places where it stands.
type Service struct {
	director.Service
	At   Position
	What string // how the text begins it
	// Sources say where each of Servers stands.
	Sources []Source
	// Notes are about what the text says of the service: the builder fills in
	// Services, or leaves it empty where the service is left out.
	Notes []Note
	// Shared are notes that the service has in common with others: a text may make
	// thousands of services of one block.
	Shared []*Shared
}

// Shared are notes on what several services are made of.
type Shared struct {
	Notes []Note

	seen     bool
	services []director.ServiceKey // of those that are there, the first ones
	more     int                   // of those that are there besides
}

// Source is the place of a server.
type Source struct {
	At   Position
	What string
	// Asked are the checks of a server: the builder makes the service's of them.
	Asked []Asked
}

// AddServer appends a server.
func (s *Service) AddServer(server realserver.Server, at Source) {
	s.Servers = append(s.Servers, server)
	s.Sources = append(s.Sources, at)
}

// Builder makes a Result. The zero value is ready.
type Builder struct {
	Timeouts conntrack.Timeouts

	sync     []director.SyncDaemon
	syncFrom Source
	services []Service
	servers  int
	notes    []*Note
	joined   map[joinKey]*Note
	files    []string // in the order they were named
	shared   []*Shared
}

// joinKey is all of a note but the services: notes that have the same say the same.
type joinKey struct {
	at        Position
	kind      Kind
	what, why string
	server    netip.AddrPort
}

// File makes notes of the file come after those of files named before.
func (b *Builder) File(name string) {
	if !slices.Contains(b.files, name) {
		b.files = append(b.files, name)
	}
}

// Note adds a note. One that says the same as another of the same place, of
// other services, is joined with it.
func (b *Builder) Note(n Note) {
	key := joinKey{n.Position, n.Kind, n.What, n.Why, n.Server}
	if before := b.joined[key]; before != nil {
		for _, service := range n.Services {
			before.add(service)
		}
		before.More += n.More
		return
	}
	if b.joined == nil {
		b.joined = make(map[joinKey]*Note)
	}
	services := n.Services
	n.Services = nil
	for _, service := range services {
		n.add(service)
	}
	b.joined[key] = &n
	b.notes = append(b.notes, &n)
}

// Sync adds sync daemons, which the text at the place asks for, and reports
// whether they are the first: there is one of each role.
func (b *Builder) Sync(from Source, daemons ...director.SyncDaemon) bool {
	if len(b.sync) > 0 {
		return false
	}
	b.sync, b.syncFrom = daemons, from
	return true
}

// Add adds a service; the error says that there are too many.
func (b *Builder) Add(s Service) error {
	b.services, b.servers = append(b.services, s), b.servers+len(s.Servers)
	switch {
	case len(b.services) > MaxServices:
		return Errorf(s.At, "there are more than %d services up to %s", MaxServices, s.What)
	case b.servers > MaxServers:
		return Errorf(s.At, "there are more than %d servers up to %s", MaxServers, s.What)
	}
	return nil
}

// Result returns the state and the notes. What no data plane takes is left out,
// with a note.
func (b *Builder) Result() (Result, error) {
	state := director.State{Timeouts: b.Timeouts}
	first := make(map[director.ServiceKey]Position, len(b.services))
	names := make(map[string]Position, len(b.services))
	for _, s := range b.services {
		s.Service = s.Normalize()
		if at, taken := first[s.Key]; taken {
			b.leaveOut(s, "%s is the service of %s already, and one address has one service", s.Key, at)
			continue
		}
		if !b.fit(&s) {
			continue
		}
		s.common()
		if at, taken := names[s.Name]; taken && s.Name != "" {
			b.Note(Note{
				Position: s.At, Kind: NotCarried, What: What("name", s.Name),
				Why: fmt.Sprintf("the service of %s has the name already", at), Services: []director.ServiceKey{s.Key},
			})
			s.Name = ""
		}
		for _, n := range s.Notes {
			n.Services = []director.ServiceKey{s.Key}
			b.Note(n)
		}
		for _, shared := range s.Shared {
			b.share(shared, s.Key)
		}
		first[s.Key], names[s.Name] = s.At, s.At
		state.Services = append(state.Services, s.Service)
	}
	for _, shared := range b.shared {
		for _, n := range shared.Notes {
			n.Services, n.More = shared.services, shared.more
			b.Note(n)
		}
	}
	state.Sync = b.fitSync(state)
	state = state.Normalize()
	if err := state.Validate(); err != nil {
		return Result{}, fmt.Errorf("translate: what came out is not valid: %w", err)
	}
	return Result{state, b.sorted()}, nil
}

// fitSync returns the sync daemons; none, with a note, if what else there is rules
// them out.
func (b *Builder) fitSync(state director.State) []director.SyncDaemon {
	with := state
	with.Sync = b.sync
	if state.Normalize().Validate() != nil {
		return nil // it is not for them, and the caller sees it
	}
	for _, problem := range director.Problems(with.Normalize().Validate()) {
		b.Note(Note{Position: b.syncFrom.At, Kind: LeftOut, What: b.syncFrom.What, Why: problem.Text})
		return nil
	}
	return b.sync
}

// sorted returns the notes in the order of the texts.
func (b *Builder) sorted() []Note {
	order := make(map[string]int, len(b.files))
	for i, name := range b.files {
		order[name] = i
	}
	slices.SortStableFunc(b.notes, func(x, y *Note) int {
		return cmp.Or(cmp.Compare(order[x.File], order[y.File]), cmp.Compare(x.Line, y.Line))
	})
	notes := make([]Note, len(b.notes))
	for i, n := range b.notes {
		notes[i] = *n
	}
	return notes
}

// fit removes the servers that no data plane takes, and reports whether one
// takes the service.
func (b *Builder) fit(s *Service) bool {
	bad := make(map[int]string)
	for _, problem := range problems(*s) {
		if b.unhealthy(s, problem) {
			continue
		}
		if problem.Server < 0 {
			b.leaveOut(*s, "%s", problem.Text)
			return false
		}
		if bad[problem.Server] == "" {
			bad[problem.Server] = problem.Text
		}
	}
	var servers []realserver.Server
	var sources []Source
	for i, server := range s.Servers {
		if text := bad[i]; text != "" {
			b.Note(Note{
				Position: s.Sources[i].At, Kind: LeftOut, What: s.Sources[i].What, Why: text,
				Services: []director.ServiceKey{s.Key}, Server: server.Address,
			})
		} else {
			servers, sources = append(servers, server), append(sources, s.Sources[i])
		}
	}
	s.Servers, s.Sources = servers, sources
	s.Health.Sorry = slices.DeleteFunc(s.Health.Sorry, func(server realserver.Server) bool { return !server.Address.IsValid() })
	return true
}

// unhealthy reports whether a problem is of what follows from checks. That is taken
// away, with a note: the service does not go because of it.
func (b *Builder) unhealthy(s *Service, problem *director.ProblemError) bool {
	note := func() {
		s.Notes = append(s.Notes, Note{Position: s.At, Kind: NotCarried, What: s.What, Why: problem.Text})
	}
	var sorry int
	switch field, h := problem.Field, &s.Health; {
	case strings.HasPrefix(field, "sorry["):
		if _, err := fmt.Sscanf(field, "sorry[%d]", &sorry); err != nil || sorry >= len(h.Sorry) {
			return false
		}
		note()
		h.Sorry[sorry] = realserver.Server{} // gone when all are looked at
	case strings.HasPrefix(field, "health.notify"):
		note()
		h.Notify = director.Notify{}
	case field == "health.maintenance":
		note()
		h.Maintenance = ""
	default:
		return false
	}
	return true
}

// leaveOut notes that there is no such service.
func (b *Builder) leaveOut(s Service, format string, args ...any) {
	b.Note(Note{Position: s.At, Kind: LeftOut, What: s.What, Why: fmt.Sprintf(format, args...)})
	for _, n := range s.Notes {
		b.Note(n)
	}
	for _, shared := range s.Shared {
		b.share(shared)
	}
}

// share takes notes that are shared, and the services that are there of theirs.
func (b *Builder) share(shared *Shared, services ...director.ServiceKey) {
	if !shared.seen {
		shared.seen = true
		b.shared = append(b.shared, shared)
	}
	for _, service := range services {
		if len(shared.services) < maxNamed {
			shared.services = append(shared.services, service)
		} else {
			shared.more++
		}
	}
}

// problems returns what is wrong with a service wherever it is to run, and what
// even IPVS lacks: it can all that the other programs do.
func problems(s Service) []*director.ProblemError {
	return director.Problems(errors.Join(s.Validate(), director.IPVSFeatures().Check(director.State{Services: []director.Service{s.Service}})))
}
