package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/event"
)

// completeTimeout is how long the daemon is waited for while somebody types.
const completeTimeout = 700 * time.Millisecond

// completedRevisions is how many of the newest revisions are offered.
const completedRevisions = 20

// complete prints what the last of the words can become, and nothing where
// nobody knows.
func complete(ctx context.Context, app *cli.App, words []string) {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	if len(words) == 0 {
		words = []string{""}
	}
	last := len(words) - 1
	word := words[last]
	c := completing{app: app}
	c.read(words[:last])
	name, _, hasValue := strings.Cut(word, "=")
	switch {
	case c.pending != nil:
		printCandidates(app, word, c.values(ctx, c.pending, word))
	case !c.only && strings.HasPrefix(word, "--") && hasValue:
		if _, flag := find(c.levels, name); flag != nil {
			printCandidates(app, word, prefixed(name+"=", c.values(ctx, flag, word[len(name)+1:])))
		}
	case !c.only && strings.HasPrefix(word, "-"):
		printCandidates(app, word, c.flags())
	case len(c.commands) > 0 && len(c.args) == 0:
		printCandidates(app, word, c.subcommands())
	default:
		printCandidates(app, word, c.arguments(ctx, word))
	}
}

// prefixed puts a text before each candidate.
func prefixed(text string, all []candidate) []candidate {
	for i := range all {
		if all[i].word != filesFollow {
			all[i].word = text + all[i].word
		}
	}
	return all
}

// arguments returns what the positional argument that is next can be.
func (c *completing) arguments(ctx context.Context, word string) []candidate {
	if c.command == nil {
		return nil
	}
	all := parameters(c.command.ArgsUsage)
	i := len(c.args)
	if i >= len(all) {
		if len(all) == 0 || !all[len(all)-1].repeated {
			return nil
		}
		i = len(all) - 1
	}
	switch all[i].name {
	case "SERVICE":
		return c.services(ctx, word)
	case "ADDRESS":
		if strings.Join(c.path, " ") == "server add" {
			return nil // it has another
		}
		return c.servers(ctx, c.args[0])
	case "POOL":
		return c.pools(ctx)
	case "AGENT":
		return c.agents(ctx, c.args[0])
	case "REVISION", "TO":
		return c.revisions(ctx)
	case "FILE":
		return []candidate{{filesFollow, ""}}
	case "ROLE":
		return plain(syncRoles...)
	case "SHELL":
		return plain(shells...)
	case "COMMAND":
		return (&completing{commands: c.app.Commands}).subcommands()
	}
	return nil
}

// values returns what a flag's value can be.
func (c *completing) values(ctx context.Context, flag cli.Flag, word string) []candidate {
	name := flag.Names()[0]
	switch strings.Join(append(slices.Clone(c.path), name), " ") {
	case "events name":
		return eventNames()
	case "conn list output":
		return plain(append(slices.Clone(formats), formatJSONL)...)
	case "conn watch output":
		return plain(formatTable, formatJSONL)
	case "conn top by":
		return plain(talkersBy...)
	case "conn ages by":
		return plain(string(director.CountByAge), string(director.CountByIdle))
	case "config check dataplane":
		return plain(director.PlaneXDP, director.PlaneIPVS)
	case "token create role":
		return plain(api.Agent.String(), api.Viewer.String(), api.Operator.String(), api.Admin.String())
	}
	if name == "server" && len(c.path) > 0 && c.path[0] == "conn" {
		return c.servers(ctx, "")
	}
	switch name {
	case "scheduler":
		var all []candidate
		for _, s := range director.Schedulers() {
			all = append(all, candidate{string(s), ""})
		}
		return all
	case "flags":
		return list(word, plain("sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3"))
	case "engine":
		return plain(string(director.EngineSIP), notSet)
	case flagTunnel:
		return plain("ipip", "gre", "gre:full", "gue:5555", "gue:5555:full", "gue:5555:remote")
	case "method":
		return plain(methods...)
	case "deadline":
		return plain("5m", "15m", "1h", notSet)
	case "kind":
		return plain(kinds...)
	case "state":
		return stateNames()
	case "by":
		return plain(api.CountedBy()...)
	case "sort":
		return plain(sortedBy...)
	case "age", "idle":
		return plain(">1h", "<10s", "1h..6h")
	case "mss":
		return plain("1400", "1360", notSet)
	case "guard":
		return plain(guardModes...)
	case "conn-reuse-mode":
		return plain("0", "1", "3")
	case "hold":
		return plain(holds...)
	case "vip":
		return plain(string(director.VIPManaged), string(director.VIPExternal))
	case "output":
		return plain(formats...)
	case "color":
		return plain(colorAuto, colorAlways, colorNever)
	case "watch":
		return plain("1s", "2s", "10s")
	case "service":
		return c.services(ctx, word)
	case "pool":
		return c.pools(ctx)
	case "if-revision", "revision":
		return c.revisions(ctx)
	case "socket", "file", "clients", "cacert", "cert", "key", "token-file", "dir":
		return []candidate{{filesFollow, ""}}
	}
	return nil
}

// stateNames are those of connections, each once.
func stateNames() []candidate {
	var names []string
	for _, state := range conntrack.AllStates() {
		if !slices.Contains(names, state.String()) {
			names = append(names, state.String())
		}
	}
	return plain(names...)
}

// plain returns candidates that explain themselves.
func plain(words ...string) []candidate {
	var all []candidate
	for _, word := range words {
		all = append(all, candidate{word, ""})
	}
	return all
}

// list returns the candidates for the last word of a list with commas, without
// those that it has already.
func list(word string, all []candidate) []candidate {
	before := word[:strings.LastIndex(word, ",")+1]
	given := words(before)
	all = slices.DeleteFunc(all, func(c candidate) bool { return slices.Contains(given, c.word) })
	return prefixed(before, all)
}

func eventNames() []candidate {
	var all []candidate
	for _, info := range event.Names() {
		all = append(all, candidate{string(info.Name), info.Help})
	}
	return all
}

// services returns what services can be called: by their names, and those
// without one, or where a URL was begun, by their URLs.
func (c *completing) services(ctx context.Context, word string) []candidate {
	client, err := c.client()
	if err != nil {
		return nil
	}
	services, err := client.Services(ctx)
	if err != nil {
		return nil
	}
	var all []candidate
	for _, s := range services {
		if s.Name != "" {
			all = append(all, candidate{s.Name, s.Listen})
		}
		if s.Name == "" || word != "" {
			all = append(all, candidate{s.Listen, s.Name})
		}
	}
	return all
}

// servers returns the addresses of a service's servers; of all servers if ref
// is empty.
func (c *completing) servers(ctx context.Context, ref string) []candidate {
	client, err := c.client()
	if err != nil {
		return nil
	}
	services, err := client.Services(ctx)
	if err != nil {
		return nil
	}
	if ref != "" {
		i, err := matchService(services, ref)
		if err != nil || i < 0 {
			return nil
		}
		services = services[i : i+1]
	}
	var all []candidate
	for _, s := range services {
		for _, server := range serversOf(s) {
			all = append(all, candidate{server.Address, server.Method + " of " + s.Listen})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return compareAddress(a.word, b.word) })
	return slices.CompactFunc(all, func(a, b candidate) bool { return a.word == b.word })
}

// pools returns the pools' names.
func (c *completing) pools(ctx context.Context) []candidate {
	client, err := c.client()
	if err != nil {
		return nil
	}
	list, err := client.Pools(ctx)
	if err != nil {
		return nil
	}
	var all []candidate
	for _, pool := range list.Pools {
		all = append(all, candidate{pool.Name, count(len(pool.Members), "server")})
	}
	return all
}

// agents returns who registered servers in a pool.
func (c *completing) agents(ctx context.Context, name string) []candidate {
	client, err := c.client()
	if err != nil {
		return nil
	}
	pool, err := client.Pool(ctx, name)
	if err != nil {
		return nil
	}
	var all []candidate
	for _, m := range pool.Members {
		all = append(all, candidate{m.Agent, m.Address})
	}
	return all
}

// revisions returns the newest revisions.
func (c *completing) revisions(ctx context.Context) []candidate {
	client, err := c.client()
	if err != nil {
		return nil
	}
	var all []candidate
	for r, err := range client.Revisions(ctx) {
		if err != nil || len(all) == completedRevisions {
			break
		}
		all = append(all, candidate{strconv.FormatUint(r.Number, 10), strings.TrimSuffix(r.Action+": "+r.Why, ": ")})
	}
	return all
}
