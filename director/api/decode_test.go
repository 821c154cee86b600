package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: whatever a body holds, it is refused with a problem or becomes a
// service that comes back the same from its own model.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"listen":"tcp://192.0.2.1:80","name":"web","scheduler":"sh","flags":["sh-port"],"vip":"external","servers":[{"address":"10.0.0.1","method":"dr","weight":0}]}`,
		`{"listen":"udp://[2001:db8::1]:53","servers":[{"address":"[2001:db8::2]:5353","method":"nat"}]}`,
		`{"flags":null,"servers":null}`, `{"servers":[{}]}`, `{"listen":1}`, `{}{}`, `[`, ``, "{\"listen\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var body ServiceConfig
		if err := decode(text, &body); err != nil {
			if p, ok := errors.AsType[*Problem](err); !ok || p.Status < 400 || p.Detail == "" {
				t.Fatalf("%q: no problem: %v", text, err)
			}
			return
		}
		service, err := body.service()
		if err != nil {
			if p := problemOf(err); p.Status == 500 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		model, err := json.Marshal(serviceConfig(service))
		if err != nil {
			t.Fatal(err)
		}
		var again ServiceConfig
		if err := decode(model, &again); err != nil {
			t.Fatalf("%s: %v", model, err)
		}
		back, err := again.service()
		if err != nil {
			t.Fatalf("%s: %v", model, err)
		}
		if !reflect.DeepEqual(service, back) {
			t.Errorf("%s:\n%+v\n%+v", model, service, back)
		}
	})
}

func TestDurationJSON(t *testing.T) {
	in := Timeouts{TCP: 1, TCPFin: 0, UDP: 3600e9}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Timeouts
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("%s (-want +got)\n%s", text, diff)
	}
}
