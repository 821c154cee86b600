package keepalived

import (
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// Options say how a text is read.
type Options struct {
	// ID is the machine's, keepalived's -i: it decides on lines that begin with @.
	// keepalived takes the host's name where none is given; here such lines are
	// left out then, each with a note.
	ID string
	// Files are where includes are read from; nil: they are not, each with a note.
	Files translation.Files
}

// Import translates a configuration; name is the file's, which relative includes
// are looked up from. The error, which is an *translation.Error but for failures
// of the package's own, tells what makes the text unreadable: a block without an
// end, say, or an include that cannot be read.
func Import(name string, source []byte, options Options) (translation.Result, error) {
	t := &translator{}
	r := newReader(options, t.build.File, t.build.Note)
	if err := r.file(name, source); err != nil {
		return translation.Result{}, err
	}
	root, err := r.tree.finish()
	if err != nil {
		return translation.Result{}, err
	}
	if err := t.all(root); err != nil {
		return translation.Result{}, err
	}
	return t.build.Result()
}

// translator gives directives their meaning.
type translator struct {
	build translation.Builder

	groups map[string]*group
	// users counts the virtual servers of a group: what they are called depends
	// on whether there are several.
	users map[string]int
	// vrids are the ids of the VRRP instances, by name; 0: it has none.
	vrids map[string]uint8
	// global is what of the whole counts for the checks of all services.
	global globals

	addresses int // of all groups
	servers   int // of all services
	services  []translation.Service
	byKey     map[director.ServiceKey]int // index of services
}

// all translates the top level. Groups and VRRP instances may come behind what
// names them, as in keepalived.
func (t *translator) all(root []*node) error {
	t.byKey = make(map[director.ServiceKey]int)
	t.groups, t.users, t.vrids = make(map[string]*group), make(map[string]int), make(map[string]uint8)
	for _, n := range root {
		switch n.word(0) {
		case "virtual_server_group":
			t.group(n)
		case "virtual_server":
			if n.word(1) == "group" {
				t.users[n.word(2)]++
			}
		case "vrrp_instance":
			t.vrid(n)
		}
	}
	for _, n := range root { // what counts for all services, wherever it stands
		switch n.word(0) {
		case "global_defs":
			t.globals(n)
		case "SSL":
			t.ssl(n)
		}
	}
	for _, n := range root {
		switch n.word(0) {
		case "virtual_server_group", "global_defs", "SSL":
		case "virtual_server":
			if err := t.virtualServer(n); err != nil {
				return err
			}
		default:
			t.topLevel(n)
		}
	}
	for _, s := range t.services {
		if err := t.build.Add(s); err != nil {
			return err
		}
	}
	for _, n := range root {
		if g := t.groups[n.word(1)]; n.word(0) == "virtual_server_group" && g != nil && t.users[g.name] == 0 {
			t.note(translation.NotCarried, n, "no virtual_server uses the group")
		}
	}
	return nil
}

// note notes what became of a directive that is of no service.
func (t *translator) note(kind translation.Kind, n *node, why string) {
	t.build.Note(translation.Note{Position: n.at, Kind: kind, What: n.String(), Why: why})
}
