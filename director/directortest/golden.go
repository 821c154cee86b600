package directortest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// GoldenCase is what a kernel's IPVS did with one sequence of connections (see
// testdata/golden/README.md).
type GoldenCase struct {
	Name      string             `json:"name"`
	Kernel    string             `json:"kernel"`
	Scheduler director.Scheduler `json:"scheduler"`
	FlagNames []string           `json:"flags"`
	Family    string             `json:"family"` // ipv4 or ipv6
	Protocol  string             `json:"protocol"`
	Weights   []uint32           `json:"weights"` // in the order of addition
	// Mode is open (every connection stays established) or closed (each is
	// closed before the next one is opened).
	Mode  string       `json:"mode"`
	Steps []GoldenStep `json:"steps"`
	// Clients are used in turn; port 0 is an ephemeral port.
	Clients []netip.AddrPort `json:"clients"`
	// Virtuals, if there are any, are the addresses that connections are made to, in
	// turn: the service has them all (fwmark).
	Virtuals []netip.Addr `json:"vips"`
	// Upper and Lower are the thresholds of the servers; empty: none.
	Upper []uint32 `json:"u_thresh"`
	Lower []uint32 `json:"l_thresh"`
	// PersistTimeout is in seconds, 0 for no persistence; PersistNetmask is
	// dotted.
	PersistTimeout      int        `json:"persist_timeout"`
	PersistNetmask      netip.Addr `json:"persist_netmask"`
	Chosen              []int      `json:"chosen"` // server per connection, -1: refused
	FinalActiveInactive [][2]int   `json:"final_active_inactive"`
	KernelListOrder     []int      `json:"kernel_list_order"`
}

// GoldenStep is a change that was made before connection number At.
type GoldenStep struct {
	At     int    `json:"at"`
	Op     string `json:"op"` // add, del, weight or close: all of the server's connections
	Server int    `json:"server"`
	Weight uint32 `json:"weight"`
}

// Golden reads the cases of a scheduler from testdata/golden; fields that a
// case has and GoldenCase does not know fail the test.
func Golden(t testing.TB, scheduler director.Scheduler) []GoldenCase {
	t.Helper()
	dir, err := goldenDir()
	if err != nil {
		t.Fatal(err)
	}
	return readGolden(t, filepath.Join(dir, string(scheduler)+".json"))
}

// AllGolden reads the cases of all files of the folder that SHUNT_GOLDEN names, or
// of testdata/golden. A relative name may be that of the folder go was started in:
// tests run in their package's.
func AllGolden(t testing.TB) []GoldenCase {
	t.Helper()
	dir := os.Getenv("SHUNT_GOLDEN")
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = above(cmp.Or(dir, goldenPath)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("%s: no golden data", dir)
	}
	var cases []GoldenCase
	for _, file := range files {
		cases = append(cases, readGolden(t, file)...)
	}
	return cases
}

func readGolden(t testing.TB, path string) []GoldenCase {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []GoldenCase
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cases); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(cases) == 0 {
		t.Fatalf("%s: no cases", path)
	}
	return cases
}

// Server returns the address of a server, by its index in the order of
// addition.
func (c GoldenCase) Server(i int) netip.AddrPort {
	if c.Family == "ipv6" {
		return netip.MustParseAddrPort(fmt.Sprintf("[fd00:2::%x]:8080", 0x11+i))
	}
	return netip.MustParseAddrPort(fmt.Sprintf("10.0.2.%d:8080", 11+i))
}

// Client returns the source of connection k.
func (c GoldenCase) Client(k int) netip.AddrPort { return c.Clients[k%len(c.Clients)] }

// Virtual returns the address of connection k; where the case names none, any is
// as good.
func (c GoldenCase) Virtual(k int) netip.AddrPort {
	switch {
	case len(c.Virtuals) > 0:
		return netip.AddrPortFrom(c.Virtuals[k%len(c.Virtuals)], 80)
	case c.Family == "ipv6":
		return netip.MustParseAddrPort("[2001:db8::1]:80")
	default:
		return netip.MustParseAddrPort("192.0.2.1:80")
	}
}

// RealServer returns a server, by its index in the order of addition, as it was
// added: with NAT, and with the thresholds of the case.
func (c GoldenCase) RealServer(i int, weight uint32) realserver.Server {
	server := realserver.Server{Address: c.Server(i), Method: realserver.NAT, Weight: weight}
	if i < len(c.Upper) {
		server.Upper = c.Upper[i]
	}
	if i < len(c.Lower) {
		server.Lower = c.Lower[i]
	}
	return server
}

// Service returns the case's service without servers.
func (c GoldenCase) Service(t testing.TB) director.Service {
	t.Helper()
	service := director.Service{
		Key:       director.ServiceKey{Protocol: conntrack.TCP, Address: c.Virtual(0)},
		Scheduler: c.Scheduler, Flags: c.Flags(),
		Persistence: director.Persistence{Timeout: time.Duration(c.PersistTimeout) * time.Second},
	}
	var err error
	if c.Protocol != "" {
		if service.Key.Protocol, err = conntrack.ParseProtocol(c.Protocol); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
	}
	if c.PersistTimeout != 0 {
		service.Persistence.Prefix = service.Key.FullPrefix()
		if c.PersistNetmask.Is4() {
			service.Persistence.Prefix = 0
			for _, b := range c.PersistNetmask.AsSlice() {
				service.Persistence.Prefix += uint8(bits.OnesCount8(b))
			}
		}
	}
	return service
}

// Flags returns the scheduler's flags.
func (c GoldenCase) Flags() director.SchedulerFlags {
	var flags director.SchedulerFlags
	for _, name := range c.FlagNames {
		flags.Port = flags.Port || strings.HasSuffix(name, "-port")
		flags.Fallback = flags.Fallback || strings.HasSuffix(name, "-fallback")
	}
	return flags
}

// goldenPath is where the golden data lies in the source tree, and in a guest,
// which has only the folders testdata of it.
const goldenPath = "testdata/golden"

func goldenDir() (string, error) { return above(goldenPath) }

// above finds a folder by walking up from the test's.
func above(name string) (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no %s in or above %s: golden data is read from the source tree", name, start)
		}
	}
}
