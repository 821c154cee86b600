package directortest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/shunt-lb/shunt"

// mayImport is the table of ARCHITECTURE.md: which packages of ours a package
// may import directly. A package that is not in it fails the test.
var mayImport = map[string][]string{
	"bpf":                                {},
	"bpf/capture":                        {"bpf"},
	"bpf/decap":                          {},
	"bpf/probe":                          {},
	"bpf/bpftest":                        {"bpf"},
	"bpf/bpftest/bench":                  {"bpf"},
	"conntrack":                          {},
	"conntrack/record":                   {"conntrack"},
	"realserver":                         {},
	"realserver/agent":                   {"bpf/decap", "realserver", "realserver/script"},
	"realserver/agent/role":              {"bpf/decap", "realserver", "realserver/agent"},
	"realserver/health":                  {"realserver", "realserver/script"},
	"realserver/snmp":                    {"realserver"},
	"realserver/script":                  {},
	"director":                           {"realserver", "conntrack", "director/event"},
	"director/event":                     {},
	"director/offer":                     {"director", "director/event", "realserver", "realserver/health", "realserver/snmp"},
	"director/lease":                     {"director", "director/event", "realserver"},
	"director/store":                     {"director", "realserver", "conntrack"},
	"director/watch":                     {"director", "director/event"},
	"director/metrics":                   {"director", "director/event", "conntrack"},
	"director/doctor":                    {"bpf/probe", "director", "realserver", "conntrack"},
	"director/migrate":                   {"director", "director/event", "realserver", "conntrack"},
	"director/scheduler":                 {"director", "realserver", "conntrack"},
	"director/xdp":                       {"director", "director/scheduler", "director/vip", "director/xdp/nexthop", "realserver", "conntrack", "conntrack/record", "bpf", "bpf/capture", "bpf/probe"},
	"director/xdp/nexthop":               {},
	"director/vip":                       {"director"},
	"director/config":                    {"director", "realserver", "conntrack"},
	"director/config/translation":        {"director", "realserver", "conntrack"},
	"director/config/ipvsadm":            {"director", "realserver", "conntrack"},
	"director/config/keepalived":         {"director", "director/config/translation", "realserver", "conntrack"},
	"director/config/ldirectord":         {"director", "director/config/translation", "realserver", "conntrack"},
	"director/ipvs":                      {"director", "director/ipvs/kernel", "director/vip", "realserver", "conntrack"},
	"director/ipvs/kernel":               {},
	"director/api":                       {"director", "director/event", "director/lease", "realserver", "conntrack", "conntrack/record"},
	"director/directortest":              {"bpf/decap", "director", "realserver", "conntrack", "conntrack/record"},
	"director/directortest/conformance":  {"bpf/decap", "conntrack", "director", "director/directortest", "realserver"},
	"director/directortest/importtest":   {"director/config", "director/config/translation"},
	"director/directortest/ipvs":         {"bpf/bpftest", "director", "director/directortest", "director/ipvs/kernel", "realserver", "conntrack"},
	"director/directortest/differential": {"bpf/bpftest", "conntrack", "director", "director/directortest/ipvs", "director/scheduler", "realserver"},
	"cmd/shunt-agent":                    {"bpf/decap", "realserver", "realserver/agent", "realserver/agent/role"},
	"cmd/shunt": {
		"cmd/shunt/ipvsadm", "conntrack", "realserver", "director", "director/api", "director/config", "director/config/ipvsadm", "director/config/keepalived",
		"director/config/ldirectord", "director/config/translation", "director/event", "director/scheduler",
	},
	"cmd/shunt/ipvsadm": {"conntrack", "director", "director/api", "director/config/ipvsadm", "director/config/translation", "realserver"},
	"cmd/shuntd": {
		"bpf", "conntrack", "realserver", "director", "director/api", "director/config", "director/doctor",
		"director/event", "director/ipvs", "director/ipvs/kernel", "director/lease", "director/metrics", "director/migrate", "director/offer", "director/store", "director/watch", "director/xdp",
		"realserver/health", "realserver/script", "realserver/snmp",
	},
	"cmd/shuntd/labtest": {"bpf", "bpf/decap", "conntrack", "realserver", "director", "director/api", "director/config", "director/ipvs"}, // tests only: of the binaries, from outside
}

// domain packages do no I/O. They may print into strings and to the slog.Logger
// they are given.
var (
	domain   = []string{"conntrack", "realserver", "director", "director/event", "director/scheduler"}
	inAndOut = []string{"net", "net/http", "os", "os/exec", "os/signal", "syscall", "log", "unsafe"}
)

// forTests are the packages for tests only. The scripts may use them too: the
// demo runs in the lab.
var forTests = []string{"bpf/bpftest", "bpf/bpftest/bench", "director/directortest", "director/directortest/conformance", "director/directortest/differential", "director/directortest/importtest", "director/directortest/ipvs"}

// oracles are what the loaded program's choices are compared with in tests, the
// data planes that ipvsadm's lists are compared on, where repairs are told, and the
// file that the kernel is filled from again, and what takes packets out of tunnels.
var oracles = map[string][]string{
	"bpf":               {"conntrack", "director", "director/scheduler"},
	"cmd/shunt":         {"director/lease"},
	"cmd/shunt/ipvsadm": {"director/ipvs", "director/xdp"},
	"director/ipvs":     {"director/config", "director/event"},
	"director/xdp":      {"bpf/decap"},
}

// mayNotContain names what must not be linked into a program at all.
var mayNotContain = map[string][]string{
	"cmd/shunt": {
		"github.com/cilium/ebpf", "github.com/vishvananda/netlink", "go.etcd.io/bbolt",
		module + "/bpf", module + "/director/xdp",
	},
	"cmd/shunt-agent": {"go.etcd.io/bbolt", module + "/bpf/bpftest", module + "/director"},
}

type listed struct {
	ImportPath                               string
	Imports, TestImports, XTestImports, Deps []string
}

// list returns this module's packages by their path within it. With -e a package
// that does not compile is the compiler's business.
func list(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", module+"/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no go command here")
	}
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	packages := map[string]listed{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module+"/")] = p
	}
}

// ours returns those of the imports that are packages of this module.
func ours(imports []string) []string {
	var own []string
	for _, path := range imports {
		if name, found := strings.CutPrefix(path, module+"/"); found {
			own = append(own, name)
		}
	}
	return own
}

func TestImports(t *testing.T) {
	for name, p := range list(t) {
		isScript := strings.HasPrefix(name, "scripts/")
		allowed, known := mayImport[name]
		if !known && !isScript {
			t.Errorf("package %s is not in the table of imports", name)
		}
		for _, imported := range ours(p.Imports) {
			if !isScript && !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s: may import %v", name, imported, allowed)
			}
		}
		// Tests may use the test packages besides.
		for _, imported := range ours(append(p.TestImports, p.XTestImports...)) {
			if !isScript && imported != name && !slices.Contains(slices.Concat(allowed, forTests, oracles[name]), imported) {
				t.Errorf("a test of %s imports %s: may import %v, %v and %v", name, imported, allowed, forTests, oracles[name])
			}
		}
		if slices.Contains(domain, name) {
			for _, imported := range p.Imports {
				standard := !strings.Contains(imported, ".")
				if slices.Contains(inAndOut, imported) || !standard && len(ours([]string{imported})) == 0 {
					t.Errorf("%s imports %s: the domain does no I/O and needs nobody else", name, imported)
				}
			}
		}
		if !isScript && !slices.Contains(forTests, name) {
			for _, imported := range ours(p.Deps) {
				if slices.Contains(forTests, imported) {
					t.Errorf("%s contains %s, which is for tests", name, imported)
				}
			}
		}
	}
}

func TestImportTableIsCurrent(t *testing.T) {
	packages := list(t)
	for name := range mayImport {
		if _, found := packages[name]; !found {
			t.Errorf("the table of imports has %s, which does not exist", name)
		}
	}
}

func TestProgramsContainOnlyWhatTheyNeed(t *testing.T) {
	packages := list(t)
	for name, unwanted := range mayNotContain {
		p, found := packages[name]
		if !found {
			t.Errorf("there is no program %s", name)
		}
		for _, dependency := range p.Deps {
			if slices.ContainsFunc(unwanted, func(u string) bool {
				return dependency == u || strings.HasPrefix(dependency, u+"/")
			}) {
				t.Errorf("%s contains %s", name, dependency)
			}
		}
	}
}
