package directortest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
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
	Op     string `json:"op"` // add, del or weight
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
	path := filepath.Join(dir, string(scheduler)+".json")
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

// Flags returns the scheduler's flags.
func (c GoldenCase) Flags() director.SchedulerFlags {
	var flags director.SchedulerFlags
	for _, name := range c.FlagNames {
		flags.Port = flags.Port || strings.HasSuffix(name, "-port")
		flags.Fallback = flags.Fallback || strings.HasSuffix(name, "-fallback")
	}
	return flags
}

// goldenDir walks up from the test's directory to the folder: in the source tree,
// and in a guest, which has only the folders testdata of it.
func goldenDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		golden := filepath.Join(dir, "testdata", "golden")
		if _, err := os.Stat(golden); err == nil {
			return golden, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no testdata/golden above %s: golden data is read from the source tree", dir)
		}
		dir = parent
	}
}
