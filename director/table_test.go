package director_test

import (
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/director"
)

// Scripts know the groups of ages by their names.
func TestAgeGroups(t *testing.T) {
	want := []string{"<10s", "<1m", "<10m", "<1h", "<6h", "<24h", ">=24h"}
	if got := director.AgeGroups(); !slices.Equal(got, want) || len(got) != len(director.AgeBounds())+1 {
		t.Errorf("groups %q, want %q", got, want)
	}
}
