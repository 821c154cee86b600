package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

func TestDropsAreFiltered(t *testing.T) {
	fake := newKernel(t, seededState())
	fake.SetDrops(
		director.Drop{Reason: "vlan", Number: 48, Kind: director.PacketDrop, Interface: "eth1", Packets: 7, Bytes: 700},
		director.Drop{Reason: "midstream", Number: 33, Kind: director.PacketDrop, Service: webKey, Interface: "eth0", Packets: 5, Bytes: 500},
		director.Drop{Reason: "midstream", Number: 33, Kind: director.PacketDrop, Service: foreignKey, Removed: true, Interface: "eth1", Packets: 1, Bytes: 60},
	)
	handler := newKernelHandler(t, fake)
	const (
		web  = `{"reason":"midstream","number":33,"kind":"drop","service":"tcp://192.0.2.10:80","name":"web","interface":"eth0","packets":5,"bytes":500}`
		gone = `{"reason":"midstream","number":33,"kind":"drop","service":"udp://192.0.2.99:53","removed":true,"interface":"eth1","packets":1,"bytes":60}`
		vlan = `{"reason":"vlan","number":48,"kind":"drop","interface":"eth1","packets":7,"bytes":700}`
	)
	for query, want := range map[string]string{
		"":                            web + "," + gone + "," + vlan,
		"service=web":                 web,
		"service=udp://192.0.2.99:53": gone,
		"reason=midstream":            web + "," + gone,
		"interface=eth1":              gone + "," + vlan,
		"interface=eth1&reason=vlan":  vlan,
		"interface=eth2":              "",
	} {
		w := ask(handler, "GET", "/v1/drops?"+query, "")
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != `{"drops":[`+want+`]}` {
			t.Errorf("%s: %d %s\nwant %s", query, w.Code, got, want)
		}
	}
	if w := ask(handler, "GET", "/v1/drops?service=nosuch", ""); w.Code != 404 {
		t.Errorf("of no service: %d %s", w.Code, w.Body)
	}
}

// A data plane without counts or packets says so.
func TestDropsAndCaptureUnsupported(t *testing.T) {
	handler := newHandler(t, directortest.NoTable(newKernel(t, seededState())))
	for _, path := range []string{"/v1/drops", "/v1/capture"} {
		if w := ask(handler, "GET", path, ""); w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "by the data plane ipvs") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestCaptureRequests(t *testing.T) {
	fake := newKernel(t, seededState())
	fake.SetCapture(func(_ context.Context, w io.Writer) (director.CaptureReport, error) {
		_, err := io.WriteString(w, "packets")
		return director.CaptureReport{Written: 2, Limited: 3, Lost: 4}, err
	})
	handler := newKernelHandler(t, fake)
	services := []director.ServiceKey{webKey}
	for query, want := range map[string]director.CaptureRequest{
		"": {},
		"service=web&service=udp://192.0.2.99:53":                         {Services: []director.ServiceKey{webKey, foreignKey}},
		"service=web&point=before&count=4&duration=2s&snaplen=64&rate=10": {Services: services, Before: true, Count: 4, Duration: 2 * time.Second, Snaplen: 64, Rate: 10},
		"point=after":                            {After: true},
		"point=both":                             {},
		"point=drops&reason=vlan&interface=eth0": {Drops: true, Reason: "vlan", Interface: "eth0"},
	} {
		w := ask(handler, "GET", "/v1/capture?"+query, "")
		if got := fake.Captures(); w.Code != 200 || w.Body.String() != "packets" || !reflect.DeepEqual(got, []director.CaptureRequest{want}) {
			t.Errorf("%s: %d %s, %+v, want %+v", query, w.Code, w.Body, got, want)
		}
		if header := w.Result(); header.Header.Get("Content-Type") != "application/x-pcapng" || header.Trailer.Get("Shunt-Lost") != "4" {
			t.Errorf("%s: %v, trailers %v", query, header.Header, header.Trailer)
		}
	}
	for query, status := range map[string]int{
		"service=nosuch": 404, "point=middle": 422, "reason=vlan": 422, "interface=eth0&point=before": 422, "rate=0": 422, "rate=100001": 422,
		"snaplen=16385": 422, "snaplen=-1": 422, "duration=5": 422, "duration=-5s": 422, "count=-1": 422, "colour=red": 422,
	} {
		if w := ask(handler, "GET", "/v1/capture?"+query, ""); w.Code != status || len(fake.Captures()) != 0 {
			t.Errorf("%s: %d %s, want %d", query, w.Code, w.Body, status)
		}
	}
	fake.SetCapture(func(context.Context, io.Writer) (director.CaptureReport, error) {
		return director.CaptureReport{}, director.ErrBusy
	})
	if w := ask(handler, "GET", "/v1/capture", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("while there is another: %d %s", w.Code, w.Body)
	}
}

// Packets are private data: who may not take the data plane off does not see them.
func TestCaptureTakesTheRoleAdmin(t *testing.T) {
	document := parsed(t)
	for path, role := range map[string]string{"/v1/capture": "admin", "/v1/drops": "viewer"} {
		if got := document["paths"].(object)[path].(object)["get"].(object)["x-role"]; got != role {
			t.Errorf("%s takes %v, want %s", path, got, role)
		}
	}
}

// The client copies what comes, and has what it came to, or why it broke off.
func TestCaptureClient(t *testing.T) {
	fake := newKernel(t, seededState())
	broken := errors.New("no more packets")
	var fails error
	fake.SetCapture(func(_ context.Context, w io.Writer) (director.CaptureReport, error) {
		_, err := io.WriteString(w, "packets")
		return director.CaptureReport{Written: 2, Limited: 3, Lost: 4}, errors.Join(err, fails)
	})
	client := serve(t, newKernelHandler(t, fake))
	var out bytes.Buffer
	report, err := client.Capture(t.Context(), api.CaptureQuery{Services: []string{"web"}, Point: "before", Duration: time.Second}, &out)
	if want := (api.CaptureReport{Written: 2, Limited: 3, Lost: 4}); err != nil || report != want || out.String() != "packets" {
		t.Errorf("%+v %v, %q", report, err, out.String())
	}
	fails = broken
	if _, err := client.Capture(t.Context(), api.CaptureQuery{}, &out); err == nil || !strings.Contains(err.Error(), broken.Error()) {
		t.Errorf("broken off: %v", err)
	}
}
