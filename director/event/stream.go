package event

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Event is one thing that happened.
type Event struct {
	// ID numbers the events: later ones have greater ids, across restarts of
	// the daemon too, as long as the clock is not set back.
	ID   uint64
	Time time.Time
	Name Name
	// Message says it in words.
	Message string
	// What it is about, where it is about one: the service's URL, the server's
	// address, the interface's or the packet event's name, the revision.
	Service   string
	Server    string
	Interface string
	Reason    string
	Revision  uint64
}

// defaultCapacity is how many events a stream keeps for readers that were away,
// unless told otherwise.
const defaultCapacity = 4096

// Stream numbers, keeps, logs and counts events. Safe for concurrent use. The
// zero value is not usable; a nil *Stream takes events and drops them.
type Stream struct {
	log    *slog.Logger
	levels map[Name]slog.Level

	mu      sync.Mutex
	next    uint64
	kept    []Event // oldest first; at most cap(kept)
	counts  map[Name]uint64
	changed chan struct{} // closed and replaced by each event
}

// NewStream returns a stream that keeps the last capacity events; 0 stands for
// 4096. Ids begin at the time in microseconds, so that they rise from one run of
// the daemon to the next.
func NewStream(log *slog.Logger, capacity int) *Stream {
	if capacity <= 0 {
		capacity = defaultCapacity
	}
	s := &Stream{
		log: log, levels: make(map[Name]slog.Level), counts: make(map[Name]uint64),
		next: uint64(time.Now().UnixMicro()), kept: make([]Event, 0, capacity), changed: make(chan struct{}),
	}
	for _, info := range Names() {
		s.levels[info.Name] = info.Level
		s.counts[info.Name] = 0
	}
	return s
}

// Publish gives the event its id and time, keeps, counts and logs it.
func (s *Stream) Publish(e Event) {
	if s == nil {
		return
	}
	s.mu.Lock()
	e.ID, e.Time = s.next, time.Now().UTC()
	s.next++
	if len(s.kept) == cap(s.kept) {
		s.kept = slices.Delete(s.kept, 0, max(1, cap(s.kept)/8)) // in strides: each moves the rest
	}
	s.kept = append(s.kept, e)
	s.counts[e.Name]++
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.log.LogAttrs(context.Background(), s.levels[e.Name], e.Message, e.attrs()...)
}

func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("event", string(e.Name))}
	for _, a := range []struct{ key, value string }{
		{"service", e.Service}, {"server", e.Server}, {"interface", e.Interface}, {"reason", e.Reason},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	if e.Revision != 0 {
		attrs = append(attrs, slog.Uint64("revision", e.Revision))
	}
	return attrs
}

// After returns the events with ids greater than id, oldest first, and whether
// events between id and the first of them are kept no more. Id 0 is before
// everything and misses nothing. An id that was never given, as a clock that was
// set back leaves one, stands before everything and missed some.
func (s *Stream) After(id uint64) (events []Event, missed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.after(id)
}

func (s *Stream) after(id uint64) ([]Event, bool) {
	unknown := id >= s.next
	if unknown {
		id = 0
	}
	i, _ := slices.BinarySearchFunc(s.kept, id+1, func(e Event, id uint64) int {
		switch {
		case e.ID < id:
			return -1
		case e.ID > id:
			return 1
		}
		return 0
	})
	missed := unknown || id != 0 && id+1 < s.next && (i == len(s.kept) || i == 0 && s.kept[0].ID > id+1)
	return slices.Clone(s.kept[i:]), missed
}

// Last returns the id of the newest event; 0 if there is none. Follow from it
// for what comes next.
func (s *Stream) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return 0
	}
	return s.kept[len(s.kept)-1].ID
}

// Follow yields the events after id as they come until the context ends, in
// batches; missed says that some before the batch are kept no more. What was
// published before the end, such as the end itself, is yielded yet. A reader that
// is slow delays nobody: it misses events instead.
func (s *Stream) Follow(ctx context.Context, id uint64) iter.Seq2[[]Event, bool] {
	return func(yield func([]Event, bool) bool) {
		for over := false; !over; {
			over = ctx.Err() != nil // before looking: nothing falls between
			s.mu.Lock()
			changed := s.changed
			batch, missed := s.after(id)
			s.mu.Unlock()
			if len(batch) > 0 {
				if !yield(batch, missed) {
					return
				}
				id = batch[len(batch)-1].ID
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// Counts returns how often each name was published since the stream was made;
// every name is present.
func (s *Stream) Counts() map[Name]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[Name]uint64, len(s.counts))
	for name, n := range s.counts {
		counts[name] = n
	}
	return counts
}
