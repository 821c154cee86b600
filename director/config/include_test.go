package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// one is a file with one service.
func one(port int) string {
	return fmt.Sprintf("services:\n- {name: s%d, listen: 'tcp://192.0.2.1:%d', servers: []}\n", port, port)
}

// names are the services of a configuration.
func names(cfg config.Config) (all []string) {
	for _, s := range cfg.State.Services {
		all = append(all, s.Name)
	}
	return all
}

func TestInclude(t *testing.T) {
	dir := t.TempDir()
	main := write(t, dir, "shunt.yaml", "director: {mode: generic}\ninclude: [conf.d, more/x*.yml, one, "+dir+"/abs/]\n"+one(1))
	write(t, dir, "conf.d/b.yaml", one(2))
	write(t, dir, "conf.d/a.yml", one(3))
	write(t, dir, "conf.d/empty.yaml", "# nothing\n")
	write(t, dir, "conf.d/.a.yml", "no: configuration")
	write(t, dir, "conf.d/a.yaml~", "no: configuration")
	write(t, dir, "conf.d/sub.yaml/a.yaml", "no: configuration")
	write(t, dir, "more/x1.yml", one(4))
	write(t, dir, "more/.x.yml", "no: configuration")
	write(t, dir, "more/y1.yml", "no: configuration")
	write(t, dir, "one", one(5))
	write(t, dir, "abs/z.yaml", one(6))
	got, err := config.Load(main)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"s1", "s2", "s3", "s4", "s5", "s6"}, names(got)); diff != "" || got.Director.Mode != "generic" {
		t.Errorf("mode %s, services (-want +got):\n%s", got.Director.Mode, diff)
	}
}

func TestLoadFolder(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a.yaml", one(1)+"director: {mode: generic, connections: {timeouts: {udp: 9s}}}\n")
	write(t, dir, "b.yml", one(2)+"include: [more/]\n")
	write(t, dir, "more/c.yaml", one(3))
	write(t, dir, "readme", "no: configuration")
	got, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"s1", "s2", "s3"}, names(got)); diff != "" || got.Director.Mode != "generic" || got.State.Timeouts.UDP == 0 {
		t.Errorf("settings %+v, services (-want +got):\n%s", got.Director, diff)
	}
	c := write(t, dir, "c.yaml", "director: {mode: native}\n")
	_, err = config.Load(dir)
	wantErrors(t, err, c+":1:11: director: it is "+a+":3 already")
}

func TestIncludeErrors(t *testing.T) {
	dir := t.TempDir()
	main := write(t, dir, "shunt.yaml", `include:
- bad
- none.yaml
- nowhere/
- "*/x.yaml"
- "[.yaml"
- ""
- [x]
- fifo
- bad/a.yaml
- .
- "nothing-*.yaml"
- link.yaml
- "a\0b"
services:
- {name: web, listen: "tcp://192.0.2.1:80", servers: []}
- {name: web, listen: "tcp://192.0.2.1:81", servers: []}
`)
	a := write(t, dir, "bad/a.yaml", `director: {mode: native}
include: [x]
services:
- {name: web, listen: "tcp://192.0.2.1:82", servers: []}
- {listen: "tcp://192.0.2.1:80", servers: []}
- {listen: "tcp://192.0.2.1:82", servers: []}
- {listen: "tcp://192.0.2.1:83", scheduler: best, servers: [{address: 10.0.0.1, method: dr, weight: 70000000000}]}
`)
	b := write(t, dir, "bad/b.yaml", "services: [\n")
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("bad/b.yaml", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(main)
	wantErrors(t, err,
		main+`:3:3: include[1]: open `+dir+`/none.yaml: no such file or directory`,
		main+`:4:3: include[2]: open `+dir+`/nowhere: no such file or directory`,
		main+`:5:3: include[3]: "*/x.yaml": wildcards may be in the file's name only`,
		main+`:6:3: include[4]: "[.yaml": syntax error in pattern`,
		main+`:7:3: include[5]: the value is empty`,
		main+`:8:3: include[6]: want a single value`,
		main+`:9:3: include[7]: `+dir+`/fifo is not a regular file`,
		main+`:10:3: include[8]: `+a+` is included by `+main+`:2 already`,
		main+`:11:3: include[9]: `+dir+`/link.yaml is included by `+main+`:2 already`,
		main+`:11:3: include[9]: `+main+` is read already: a file cannot include itself`,
		main+`:13:3: include[11]: `+dir+`/link.yaml is included by `+main+`:2 already`,
		main+`:14:3: include[12]: "a\x00b" has a NUL byte`,
		main+`:17:10: services[1] "web": name "web" is that of services[0] already`,
		a+`:1:11: director: an included file has services only: put it into `+main,
		a+`:2:10: include: an included file cannot include others: list them in `+main,
		a+`:4:10: services[0] "web": name "web" is that of `+main+`:16 already`,
		a+`:5:12: services[1] tcp://192.0.2.1:80: tcp://192.0.2.1:80 is `+main+`:16 already`,
		a+`:6:12: services[2] tcp://192.0.2.1:82: tcp://192.0.2.1:82 is services[0] already`,
		a+`:7:45: services[3] tcp://192.0.2.1:83: unknown scheduler "best": want `+allSchedulers(),
		a+`:7:101: services[3].servers[0].weight: "70000000000" is not a weight: want 0 to 2147483647`,
		b+`:2:1: while parsing a flow node: did not find expected node content`,
	)
	if !strings.Contains(config.Report(err), "\n  4 | - {name: web, listen: \"tcp://192.0.2.1:82\", servers: []}\n    |          ^\n") {
		t.Errorf("no excerpt of the included file:\n%s", config.Report(err))
	}

	_, err = config.Parse("stdin", []byte("include: [x]"))
	wantErrors(t, err, "stdin:1:10: include: stdin is not a file, so there is nothing beside it to include")
}

func TestLoadLimits(t *testing.T) {
	dir := t.TempDir()
	main := write(t, dir, "shunt.yaml", "include: [conf.d]\n")
	for i := range config.MaxFiles + 1 {
		write(t, dir, fmt.Sprintf("conf.d/%d.yaml", i), "")
	}
	_, err := config.Load(main)
	wantErrors(t, err, fmt.Sprintf("%s:1:11: include[0]: folder %s/conf.d has more than 1000 such files", main, dir))
	if err := os.Remove(filepath.Join(dir, "conf.d/0.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err = config.Load(main)
	wantErrors(t, err, main+":1:11: include[0]: the configuration has more than 1000 files")
	if _, err := config.Load(dir + "/conf.d"); err != nil {
		t.Errorf("1000 files: %v", err)
	}

	many := write(t, dir, "many/main.yaml", "include: [d]\n")
	for i := range 3 {
		write(t, dir, fmt.Sprintf("many/d/%d.yaml", i), "#"+strings.Repeat("\n", 100_000))
	}
	_, err = config.Load(many)
	wantErrors(t, err, dir+"/many/d/2.yaml: the configuration has more than 262144 lines and values up to here")
	for i := range 5 {
		write(t, dir, fmt.Sprintf("many/d/%d.yaml", i), "#"+strings.Repeat("x", config.MaxBytes-1))
	}
	_, err = config.Load(many)
	wantErrors(t, err, dir+"/many/d/3.yaml: the configuration is larger than 16 MiB up to here",
		dir+"/many/d/4.yaml: the configuration is larger than 16 MiB up to here")
}

// Unreadable is not the same as absent, and said as it is.
func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	main := write(t, dir, "shunt.yaml", "include: [loop.yaml, loop/]\n")
	for _, name := range []string{"loop.yaml", "loop"} {
		if err := os.Symlink(name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := config.Load(main)
	wantErrors(t, err,
		main+":1:11: include[0]: open "+dir+"/loop.yaml: too many levels of symbolic links",
		main+":1:22: include[1]: open "+dir+"/loop: too many levels of symbolic links")
	if _, err := config.Load(filepath.Join(dir, "loop")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("named: %v", err)
	}
	empty := t.TempDir()
	if _, err := config.Load(empty); err == nil || err.Error() != "read configuration: folder "+empty+" has no *.yaml and no *.yml" {
		t.Errorf("empty folder: %v", err)
	}
	// What a shell's <(command) gives is a pipe.
	fifo := filepath.Join(empty, "pipe")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(fifo, []byte(one(7)), 0) }()
	got, err := config.Load(fifo)
	if err != nil || len(got.State.Services) != 1 {
		t.Errorf("pipe: %v, %+v", err, got.State)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
