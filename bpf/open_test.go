package bpf

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOpen(t *testing.T) {
	dir := filepath.Join("/sys/fs/bpf", "t"+filepath.Base(t.TempDir()))
	defer os.RemoveAll(dir)
	l := Limits{Connections4: 1024, Connections6: 1024, Services: 16, Servers: 64, Words: 1024}
	p, err := Open(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(p.Clock, p.Limits)
	if _, err := Open(dir, l); err == nil {
		t.Fatal("opened twice")
	} else {
		t.Log(err)
	}
	var a KernelSweepArgs
	a.Groups = p.Connections4.MaxEntries()
	if err := p.Sweep(false, &a); err != nil {
		t.Fatal(err)
	}
	t.Log(a)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, err = Open(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Adopted {
		t.Fatal("not adopted")
	}
	for e, err := range p.Entries(true) {
		t.Fatal(e, err)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
}
