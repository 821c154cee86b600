package ipvs

import (
	"errors"
	"fmt"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// A change of a few services reads those: one of a thousand costs as much as the
// only one.
func TestGuestReadsWhatItChanges(t *testing.T) {
	r := newRig(t)
	var many []director.Service
	for i := range fewServices + 1 {
		many = append(many, service(fmt.Sprintf("tcp://192.0.2.%d:80", i+1), realserver.DR, "10.0.0.1"))
	}
	for _, step := range []struct {
		name  string
		ops   []director.Operation
		lists int
	}{
		{"many", adding(many...), 1},
		{"many_again", adding(many...), 1},
		{"few_again", adding(many[:2]...), 0},
		{"a_mark", adding(service("fwmark6://7", realserver.NAT, "2001:db8::1")), 0},
		{"a_server", []director.Operation{director.AddServer{Key: many[0].Key, Server: realserver.Server{Address: many[1].Key.Address, Method: realserver.DR, Weight: 1}}}, 0},
		{"a_removal", []director.Operation{director.RemoveService{Key: many[0].Key}}, 0},
		{"a_removal_again", []director.Operation{director.RemoveService{Key: many[0].Key}}, 0},
	} {
		r.spy.lists, r.spy.writes = 0, nil
		r.apply(t, step.ops...)
		if r.spy.lists != step.lists {
			t.Errorf("%s: all services were read %d times, want %d", step.name, r.spy.lists, step.lists)
		}
	}
	r.spy.wrote(t)
	if n := len(r.found(t).Services); n != fewServices+1 {
		t.Errorf("%d services, want %d", n, fewServices+1)
	}
	// One that the kernel can have none of is refused by its operation.
	wide := service("tcp://192.0.2.0/24:80", realserver.DR)
	err := r.Apply(t.Context(), adding(wide))
	if failed := (*director.OperationError)(nil); !errors.As(err, &failed) || !errors.Is(err, director.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}
