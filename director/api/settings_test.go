package api_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

// TestEditsOfSettings: each edit changes what it names, in the order given.
func TestEditsOfSettings(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	type settings struct {
		Persistence *struct {
			Timeout string
			Prefix  int
		}
		Timeouts  map[string]string
		Reuse     *int `json:"conn-reuse-mode"`
		Sloppy    bool `json:"sloppy-tcp"`
		Nodest    bool `json:"expire-nodest-conn"`
		Quiescent bool `json:"expire-quiescent-template"`
	}
	for _, step := range []struct{ edit, want string }{
		{`{}`, `{}`},
		{`{"persistence":{"timeout":"5m"}}`, `{"persistence":{"timeout":"5m0s","prefix":32}}`},
		{`{"persistence":{"prefix":24},"sloppy-tcp":true}`, `{"persistence":{"timeout":"5m0s","prefix":24},"sloppy-tcp":true}`},
		{`{"persistence":{"timeout":"6m"}}`, `{"persistence":{"timeout":"6m0s","prefix":24},"sloppy-tcp":true}`},
		{`{"persistence":{"prefix":0}}`, `{"persistence":{"timeout":"6m0s","prefix":0},"sloppy-tcp":true}`},
		{`{"persistence":{}}`, `{"persistence":{"timeout":"6m0s","prefix":0},"sloppy-tcp":true}`},
		{`{"persistence":{"timeout":"0s"},"sloppy-tcp":false}`, `{}`},
		{`{"timeouts":{"tcp":"1h","udp":"1m"}}`, `{"timeouts":{"tcp":"1h0m0s","udp":"1m0s"}}`},
		{`{"timeouts":{"tcp-fin":"9s","udp":"0s"}}`, `{"timeouts":{"tcp":"1h0m0s","tcp-fin":"9s"}}`},
		{`{"timeouts":{"tcp":"0s","tcp-fin":"0s"}}`, `{}`},
		{`{"conn-reuse-mode":0,"expire-nodest-conn":true}`, `{"conn-reuse-mode":0,"expire-nodest-conn":true}`},
		{`{"conn-reuse-mode":3,"expire-quiescent-template":true}`, `{"conn-reuse-mode":3,"expire-nodest-conn":true,"expire-quiescent-template":true}`},
		{`{"conn-reuse-mode":1,"expire-nodest-conn":false,"expire-quiescent-template":false}`, `{}`},
	} {
		if w := ask(h, "PATCH", "/v1/services/web", step.edit); w.Code != 200 {
			t.Fatalf("%s: %d %s", step.edit, w.Code, w.Body)
		}
		var got, want settings
		if err := json.Unmarshal(ask(h, "GET", "/v1/services/web", "").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(step.want), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("after %s (-want +got)\n%s", step.edit, diff)
		}
	}
}
