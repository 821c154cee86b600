package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// jsonNumber is an answer that is a number.
func jsonNumber(field string, n uint64) string { return fmt.Sprintf("{%q:%d}\n", field, n) }

// TestWideServices: a key with a slash in it works wherever a service is named.
func TestWideServices(t *testing.T) {
	for _, listen := range []string{
		"tcp://198.51.100.0/24:8000-8999", "udp://[2001:db8:7::]:0", "udp://[2001:db8:7::/64]:53", "tcp://192.0.2.77:1-65535",
	} {
		t.Run(listen, func(t *testing.T) {
			tryService(t, serve(t, newHandler(t, directortest.NewFake(director.State{}))), listen)
		})
	}
	t.Run("pages_begin_after_one", func(t *testing.T) {
		h := newHandler(t, directortest.NewFake(director.State{}))
		for _, listen := range []string{"tcp://198.51.100.0/24:80", "tcp://198.51.100.0:80", "tcp://198.51.100.0:80-90"} {
			if w := ask(h, "POST", "/v1/services", fmt.Sprintf(`{"listen":%q,"vip":"external"}`, listen)); w.Code != 201 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		var got []string
		for after := ""; len(got) < 10; {
			w := ask(h, "GET", "/v1/services?limit=1"+after, "")
			_, listen, _ := strings.Cut(w.Body.String(), `"listen":"`)
			listen, _, _ = strings.Cut(listen, `"`)
			got = append(got, listen)
			_, next, more := strings.Cut(w.Body.String(), `"next":"`)
			if !more {
				break
			}
			next, _, _ = strings.Cut(next, `"`)
			after = "&after=" + next
		}
		want := []string{"tcp://192.0.2.10:80", "tcp://198.51.100.0/24:80", "tcp://198.51.100.0:80", "tcp://198.51.100.0:80-90"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("its_path_is_escaped", func(t *testing.T) {
		w := ask(newHandler(t, directortest.NewFake(director.State{})), "POST", "/v1/services", `{"listen":"tcp://198.51.100.0/24:8000-8999","vip":"external"}`)
		if got, want := w.Header().Get("Location"), "/v1/services/tcp:%2F%2F198.51.100.0%2F24:8000-8999"; got != want {
			t.Errorf("Location %q, want %q", got, want)
		}
	})
}

// tryService adds a service with a server, changes both, and removes them; each
// time they are named by what the answers say.
func tryService(t *testing.T, client *api.Client, listen string) {
	t.Helper()
	server := "10.0.0.1"
	if strings.Contains(listen, "[") || strings.HasPrefix(listen, "fwmark6:") {
		server = "2001:db8:1::1"
	}
	persistent := &api.Persistence{Timeout: api.Duration(60e9)}
	service := api.ServiceConfig{Listen: listen, VIP: "external", Persistence: persistent, Servers: []api.ServerConfig{{Address: server, Method: "dr"}}}
	ok := func(_ api.Outcome, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(client.AddService(t.Context(), service, api.Terms{}))
	got, err := client.Service(t.Context(), listen)
	if err != nil || got.Listen != listen || len(got.Servers) != 1 {
		t.Fatalf("%v: %+v", err, got)
	}
	weight := uint32(7)
	address := got.Servers[0].Address // as it was answered
	ok(client.EditServer(t.Context(), listen, address, api.ServerEdit{Weight: &weight}, api.Terms{}))
	ok(client.EditServer(t.Context(), listen, server, api.ServerEdit{Upper: &weight}, api.Terms{}))
	scheduler := "mh"
	ok(client.EditService(t.Context(), listen, api.ServiceEdit{Scheduler: &scheduler}, api.Terms{}))
	configuration, _, err := client.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := client.Plan(t.Context(), configuration)
	if err != nil || len(plan.Steps) > 0 {
		t.Errorf("what was read is not what is desired: %v, %+v", err, plan.Steps)
	}
	if _, err := client.CountConnections(t.Context(), api.ConnectionQuery{Service: listen}); err != nil {
		t.Error(err)
	}
	if _, err := client.Events(t.Context(), api.EventQuery{Service: listen}); err != nil {
		t.Error(err)
	}
	services, err := client.Services(t.Context())
	if err != nil || len(services) != 2 {
		t.Errorf("%d services, %v", len(services), err)
	}
	ok(client.RemoveServer(t.Context(), listen, address, api.Terms{}))
	ok(client.RemoveService(t.Context(), listen, api.Terms{}))
}
