package ipvsadm_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// FuzzParse gives arguments, each up to a zero byte. Nothing crashes; a refusal is
// a *UsageError with a status of ipvsadm's; what is accepted can be saved, if it
// is a service that the director knows.
func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, line := range oddities {
		f.Add(strings.Join(line, "\x00"))
	}
	for range 50 {
		f.Add(strings.Join(draw(r), "\x00"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		command, err := ipvsadm.Parser{Names: fewNames{}}.Parse(strings.Split(text, "\x00"))
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if command.Operation != ipvsadm.AddService {
			return
		}
		service, err := command.Service.Director()
		if err != nil || service.Validate() != nil {
			return
		}
		if command.Service.Mark > 1<<31-1 || service.Scheduler.HasFlags() && service.Flags.Third {
			return // what ipvsadm -S loses
		}
		saved, omitted := ipvsadm.Writer{}.Save([]director.Service{service})
		if len(omitted) > 0 {
			t.Fatal(omitted)
		}
		got := restored(t, saved)
		if len(got) != 1 || !got[0].Identical(service) {
			t.Fatalf("%q: saved as %q, restored as %+v, want %+v", text, saved, got, service)
		}
	})
}

// FuzzRestore gives mangled save files. Nothing crashes, lines are told in their
// order, nothing follows a line that ends ipvsadm, and a file with an error is no
// save file.
func FuzzRestore(f *testing.F) {
	for _, c := range restoreTexts {
		f.Add([]byte(c.text))
	}
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 2))
		saved, _ := ipvsadm.Writer{}.Save(drawServices(r))
		text := []byte(saved)
		f.Add(text)
		for range 5 {
			text = bytes.Clone(text)
			text[r.IntN(len(text))] = byte(r.IntN(256))
			f.Add(text[:r.IntN(len(text))])
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p := ipvsadm.Parser{Names: fewNames{}}
		last, ended := 0, false
		for _, l := range p.Restore(text) {
			if l.Number <= last || ended || len(l.Args) == 0 {
				t.Fatalf("line %d after %d, the end: %t", l.Number, last, ended)
			}
			last = l.Number
			if l.Err != nil {
				checkRefusal(t, l.Err)
				ended = !l.Err.(*ipvsadm.UsageError).Continue
			}
		}
		if last > 1+bytes.Count(text, []byte("\n")) {
			t.Fatalf("line %d of %q", last, text)
		}
		lines, err := p.ParseSave(text)
		if err == nil {
			for _, l := range lines {
				if l.Err != nil {
					t.Fatalf("line %d: %v, and ParseSave says nothing", l.Number, l.Err)
				}
			}
		} else if located := (*ipvsadm.LineError)(nil); !errors.As(err, &located) {
			t.Fatalf("%T: %v, want a *LineError", err, err)
		}
	})
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	var refused *ipvsadm.UsageError
	if !errors.As(err, &refused) {
		t.Fatalf("%T: %v, want a *UsageError", err, err)
	}
	if refused.Exit != ipvsadm.ExitUsage && refused.Exit != ipvsadm.ExitRefused || refused.Text == "" {
		t.Fatalf("status %d, text %q", refused.Exit, refused.Text)
	}
}
