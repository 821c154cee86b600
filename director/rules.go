package director

import "fmt"

// Rules are what the kernel has as sysctls, for a service by itself. The zero
// value is the kernel's defaults.
type Rules struct {
	SloppyTCP               bool      // sloppy_tcp: any segment but a reset begins a connection
	ExpireNoDestConn        bool      // expire_nodest_conn: a removed server's connections are scheduled anew
	ExpireQuiescentTemplate bool      // expire_quiescent_template: weight 0 ends persistence too
	ConnReuse               ReuseMode // conn_reuse_mode
}

// ReuseMode says which old connections a client's first segment replaces.
type ReuseMode uint8

// The modes; the numbers of the sysctl conn_reuse_mode are ReuseMode.Number's.
const (
	ReuseClosed  ReuseMode = iota // in TIME_WAIT and CLOSE: 1, the default
	ReuseNever                    // none: 0
	ReuseFinWait                  // those, and FIN_WAIT where replies are not seen: 3
)

// Number returns the value of the sysctl conn_reuse_mode that the mode stands for.
func (m ReuseMode) Number() int {
	switch m {
	case ReuseNever:
		return 0
	case ReuseFinWait:
		return 3
	default:
		return 1
	}
}

// ParseReuseMode is the inverse of Number; 2, which the kernel takes as 3, is not
// read.
func ParseReuseMode(number int) (ReuseMode, error) {
	for _, m := range []ReuseMode{ReuseClosed, ReuseNever, ReuseFinWait} {
		if m.Number() == number {
			return m, nil
		}
	}
	return 0, fmt.Errorf("conn-reuse-mode %d: want 0, 1 or 3: %w", number, ErrInvalid)
}
