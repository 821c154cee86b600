package offer

import (
	"fmt"

	"github.com/shunt-lb/shunt/director"
)

// doubt is the panic threshold: when fewer than the share of servers are up, the checks
// are more likely to be wrong than so many servers dead, and all that are down by their
// word are offered. What an operator ordered is not doubted, and who never answered yet
// is not missed.
func (d *decision) doubt(h *director.Health) {
	if h.Panic == 0 {
		return
	}
	judged, up := 0, 0
	for i := range d.rulings {
		r := &d.rulings[i]
		if !r.known || r.steps[1].Why != "" || !r.up && !r.doubt {
			continue
		}
		if judged++; r.up {
			up++
		}
	}
	if judged == 0 || full*up >= int(h.Panic)*judged {
		return
	}
	d.panic = true
	for i := range d.rulings {
		if r := &d.rulings[i]; r.doubt && r.known {
			r.serves = true
			r.steps[2].Why = fmt.Sprintf("%s; but only %d of %d are up, less than %d %%: the checks are doubted", r.why, up, judged, h.Panic)
		}
	}
}
