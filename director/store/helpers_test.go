package store

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// equal compares revisions; an empty list is as good as none.
var equal = cmp.Options{
	cmpopts.EquateEmpty(),
	cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}, netip.Addr{}),
}

// messages collects what was said to be repaired.
type messages []string

func (m *messages) options() Options {
	return Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Repaired: func(text string) { *m = append(*m, text) }}
}

// want fails the test unless there is one message and it has all the words.
func (m *messages) want(t *testing.T, words ...string) {
	t.Helper()
	if len(*m) != 1 {
		t.Fatalf("repaired: %q, want one message with %q", *m, words)
	}
	wantWords(t, (*m)[0], words...)
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

// wantError fails the test unless the error has all the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	wantWords(t, err.Error(), words...)
}

func mustOpen(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t testing.TB, s *Store) director.Revision {
	t.Helper()
	head, _, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// mustGrow appends the next revisions of the history that revisionOf makes up.
func mustGrow(t testing.TB, s *Store, count int) {
	t.Helper()
	for n := mustLoad(t, s).Number + 1; count > 0; n, count = n+1, count-1 {
		if err := s.Append(revisionOf(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// wantHistory fails the test unless the store holds that history up to the
// number, and no more.
func wantHistory(t testing.TB, s *Store, first, last uint64) {
	t.Helper()
	if head := mustLoad(t, s); head.Number != last {
		t.Fatalf("the newest revision is %d, want %d", head.Number, last)
	}
	for n := first; n <= last; n++ {
		got, err := s.Revision(n)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(revisionOf(n), got, equal); d != "" {
			t.Fatalf("revision %d (-want +got)\n%s", n, d)
		}
	}
}

// wantAlike fails the test unless both files are sound and end alike.
func wantAlike(t testing.TB, dir string) {
	t.Helper()
	var ends [copies]position
	for i, name := range fileNames {
		h, err := inspect(t.Context(), filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = h.end()
	}
	if ends[0] != ends[1] {
		t.Fatalf("the copies end at revisions %d and %d, or differ", ends[0].number, ends[1].number)
	}
}

func tcp(address string) director.ServiceKey {
	return director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort(address)}
}

// revisionOf makes up the revision of a number: a function of the number alone,
// so that any process knows what each must hold. Services come, change and go.
func revisionOf(number uint64) director.Revision {
	state := director.State{Timeouts: conntrack.DefaultTimeouts()}
	state.Timeouts.UDP += time.Duration(number/10) * time.Second
	for i := range uint64(12) {
		if (number/3+i)%5 == 0 {
			continue // gone for a while
		}
		service := director.Service{
			Key:       tcp(fmt.Sprintf("192.0.2.%d:80", i+1)),
			Name:      fmt.Sprintf("web-%d", i),
			Scheduler: director.Maglev,
			Flags:     director.SchedulerFlags{Port: i%2 == 0, Fallback: i%3 == 0},
			VIP:       director.VIPManaged,
		}
		if i == 3 {
			service.Access.Allow = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
			service.Access.Deny = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
		}
		weight := uint32(1)
		if i == number%12 {
			weight = uint32(number)
		}
		for k := range uint64(4) { // not sorted, and turned around now and then
			last := 1 + (k+number/20)%4
			service.Servers = append(service.Servers, realserver.Server{
				Address: netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:80", i, last)),
				Method:  realserver.Method(3 * (k % 2)), Weight: weight,
			})
		}
		state.Services = append(state.Services, service)
	}
	return director.Revision{
		RevisionInfo: director.RevisionInfo{
			Number: number, Time: time.Unix(1_700_000_000+int64(number), 123).UTC(),
			Who: "root", Why: strings.Repeat("because ", int(number%4)), Action: fmt.Sprintf("edit %d", number),
		},
		State: state.Normalize(),
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustWrite(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
