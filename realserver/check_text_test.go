package realserver_test

import (
	"testing"

	"github.com/shunt-lb/shunt/realserver"
)

func TestParseStatusRange(t *testing.T) {
	for text, want := range map[string]realserver.StatusRange{"200": {First: 200, Last: 200}, "100-599": {First: 100, Last: 599}, "204-204": {First: 204, Last: 204}} {
		got, err := realserver.ParseStatusRange(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if again, err := realserver.ParseStatusRange(got.String()); err != nil || again != want {
			t.Errorf("%s: %v, %v", got, again, err)
		}
	}
	for _, text := range []string{"", "-", "200-", "-299", "99", "600", "299-200", "0200", "+200", "2xx", "200-299-300", "200 - 299"} {
		if got, err := realserver.ParseStatusRange(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestParseHeader(t *testing.T) {
	for text, want := range map[string]realserver.Header{
		"X-Probe: shunt":  {Name: "X-Probe", Value: "shunt"},
		"x-probe:a: b\tc": {Name: "X-Probe", Value: "a: b\tc"},
		"X-Empty:":        {Name: "X-Empty"},
	} {
		got, err := realserver.ParseHeader(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := realserver.ParseHeader(got.String()); err != nil || again != want {
			t.Errorf("%s: %+v, %v", got, again, err)
		}
	}
	for _, text := range []string{"", "X-Probe", ": a", "X Probe: a", "X-Probe : a", "Ä: a", "X: a\r\nY: b", "X: a\x00"} {
		if got, err := realserver.ParseHeader(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
