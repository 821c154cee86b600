package event

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func ids(events []Event) []uint64 {
	var all []uint64
	for _, e := range events {
		all = append(all, e.ID)
	}
	return all
}

func TestStream(t *testing.T) {
	var log bytes.Buffer
	s := NewStream(slog.New(slog.NewTextHandler(&log, nil)), 8)
	if got, missed := s.After(0); len(got) != 0 || missed || s.Last() != 0 {
		t.Fatalf("new stream: %v, missed %v", got, missed)
	}
	for range 8 {
		s.Publish(Event{Name: Drift, Message: "weight of a server is 3, want 1", Service: "tcp://192.0.2.1:80"})
	}
	all, missed := s.After(0)
	if len(all) != 8 || missed {
		t.Fatalf("After(0) = %d events, missed %v", len(all), missed)
	}
	first := all[0].ID
	if got, missed := s.After(first + 2); missed || len(got) != 5 || got[0].ID != first+3 {
		t.Errorf("After(third) = %v, missed %v", ids(got), missed)
	}
	if got, missed := s.After(s.Last()); len(got) != 0 || missed {
		t.Errorf("After(last) = %v, missed %v", ids(got), missed)
	}
	s.Publish(Event{Name: Repaired, Message: "repaired"})
	if got, missed := s.After(first); missed || len(got) != 8 || got[0].ID != first+1 {
		t.Errorf("after the oldest went: After(oldest) = %v, missed %v: the next one is still kept", ids(got), missed)
	}
	s.Publish(Event{Name: Repaired, Message: "repaired"})
	if got, missed := s.After(first); !missed || len(got) != 8 || got[0].ID != first+2 {
		t.Errorf("After(gone) = %v, missed %v", ids(got), missed)
	}
	if got, missed := s.After(1); !missed || len(got) != 8 {
		t.Errorf("After(id of an earlier run) = %d events, missed %v", len(got), missed)
	}
	if got, missed := s.After(s.Last() + 1000); !missed || len(got) != 8 {
		t.Errorf("After(id never given) = %d events, missed %v", len(got), missed)
	}
	counts := s.Counts()
	if counts[Drift] != 8 || counts[Repaired] != 2 || len(counts) != len(Names()) {
		t.Errorf("Counts = %v", counts)
	}
	if !strings.Contains(log.String(), `level=WARN msg="weight of a server is 3, want 1" event=drift service=tcp://192.0.2.1:80`) {
		t.Errorf("log has no line of the event:\n%s", &log)
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStream(slog.New(slog.DiscardHandler), 4)
		s.Publish(Event{Name: Started})
		ctx, cancel := context.WithCancel(t.Context())
		var got []Event
		missedAny := false
		done := make(chan struct{})
		go func() {
			defer close(done)
			for batch, missed := range s.Follow(ctx, s.Last()) {
				got = append(got, batch...)
				missedAny = missedAny || missed
			}
		}()
		synctest.Wait()
		if len(got) != 0 {
			t.Fatalf("Follow(last) yields %v at once", ids(got))
		}
		s.Publish(Event{Name: Change, Revision: 7})
		synctest.Wait()
		if len(got) != 1 || got[0].Revision != 7 {
			t.Fatalf("got %v", got)
		}
		cancel()
		<-done
		if missedAny {
			t.Error("a reader that was never away missed events")
		}
	})
}

// TestFollowEnds: a context that ends while its reader is busy ends the stream
// with what was published before.
func TestFollowEnds(t *testing.T) {
	s := NewStream(slog.New(slog.DiscardHandler), 0)
	s.Publish(Event{Name: Started})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got [][]Name
	for batch := range s.Follow(ctx, 0) {
		var names []Name
		for _, e := range batch {
			names = append(names, e.Name)
		}
		if got = append(got, names); len(got) > 2 {
			break // it goes on as long as events come
		}
		s.Publish(Event{Name: Stopping})
		cancel()
	}
	if diff := cmp.Diff([][]Name{{Started}, {Stopping}}, got); diff != "" {
		t.Errorf("batches (-want +got)\n%s", diff)
	}
}

func TestNames(t *testing.T) {
	seen := map[Name]bool{}
	for _, info := range Names() {
		if info.Help == "" || seen[info.Name] {
			t.Errorf("%q: no help, or twice", info.Name)
		}
		seen[info.Name] = true
	}
}

func TestNilStream(t *testing.T) {
	var s *Stream
	s.Publish(Event{Name: Started}) // must not panic
}
