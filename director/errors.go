package director

import (
	"errors"
	"fmt"
)

// The errors callers branch on. Each is wrapped with the act and its object.
var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("exists already")
	ErrInvalid     = errors.New("invalid")
	ErrUnsupported = errors.New("not supported")
	ErrFull        = errors.New("full")
	// ErrBusy: something else is under way; trying again helps.
	ErrBusy = errors.New("busy")
	// ErrNoMemory: the kernel has none for what is asked for.
	ErrNoMemory = errors.New("not enough memory")
	// ErrNoScheduler: the kernel has no module of the scheduler or the persistence
	// engine.
	ErrNoScheduler = errors.New("no such scheduler or persistence engine in the kernel")
	// ErrNoInterface: the host has no interface of the name.
	ErrNoInterface = errors.New("no such network interface")
)

// OperationError is the failure of one step of a plan.
type OperationError struct {
	Operation Operation
	Err       error
}

// Error names the step and the cause.
func (e *OperationError) Error() string { return fmt.Sprintf("%s: %v", e.Operation, e.Err) }

// Unwrap returns the cause.
func (e *OperationError) Unwrap() error { return e.Err }

// BypassedError refuses to move services to XDP because of firewall rules that
// their packets would not come by any more.
type BypassedError struct{ Rules []string }

// Error says how many; Rules names them.
func (e *BypassedError) Error() string {
	return fmt.Sprintf("XDP takes packets past rules of the firewall: %d", len(e.Rules))
}
