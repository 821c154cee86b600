package watch_test

import (
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/watch"
)

func TestPackets(t *testing.T) {
	for name, tt := range map[string]struct {
		kind   director.PacketKind
		counts []uint64 // second by second
		want   []string
	}{
		"drops_from_before_are_no_news": {director.PacketDrop, []uint64{7, 7, 7}, nil},
		"drops_start_and_end": {
			director.PacketDrop,
			[]uint64{7, 10, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 20},
			[]string{
				"1s drops-started [martian] martian: packets are dropped, 3 so far: from nowhere",
				"15s drops-ended [martian] martian: none dropped for 10s, 9 before: from nowhere",
				"17s drops-started [martian] martian: packets are dropped, 4 so far: from nowhere",
			},
		},
		"a_pause_is_no_end": {
			director.PacketDrop,
			[]uint64{0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2},
			[]string{"1s drops-started [martian] martian: packets are dropped, 1 so far: from nowhere"},
		},
		"a_count_that_starts_anew": {
			director.PacketDrop,
			[]uint64{100, 3, 5},
			[]string{"1s drops-started [martian] martian: packets are dropped, 3 so far: from nowhere"},
		},
		"faults_are_told_at_the_start_and_once_a_burst": {
			director.PacketFault,
			[]uint64{2, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5},
			[]string{
				"0s fault [martian] martian: 2 counted since the data plane was loaded: from nowhere",
				"2s fault [martian] martian: 1 counted: from nowhere",
				"14s fault [martian] martian: 1 counted: from nowhere",
			},
		},
		"answers_are_no_drops": {director.PacketAnswer, []uint64{0, 5, 9}, nil},
		"notes_are_no_drops":   {director.PacketNote, []uint64{0, 5, 9}, nil},
		"passing_is_no_drop":   {director.PacketPass, []uint64{0, 5, 9}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := watched(t, len(tt.counts)-1, watch.Options{}, func(second int) (director.Stats, error) {
				return director.Stats{PacketEvents: []director.PacketEvent{
					{Name: "martian", Kind: tt.kind, Help: "from nowhere", Count: tt.counts[second]},
				}}, nil
			})
			compare(t, tt.want, got)
		})
	}
}

func TestDropsOfAReasonThatIsNew(t *testing.T) {
	got := watched(t, 3, watch.Options{Quiet: time.Second}, func(second int) (director.Stats, error) {
		var stats director.Stats
		if second > 0 {
			stats.PacketEvents = []director.PacketEvent{{Name: "odd", Kind: director.PacketDrop, Help: "odd ones", Count: 4}}
		}
		return stats, nil
	})
	compare(t, []string{
		"1s drops-started [odd] odd: packets are dropped, 4 so far: odd ones",
		"2s drops-ended [odd] odd: none dropped for 1s, 4 before: odd ones",
	}, got)
}
