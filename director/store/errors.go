package store

import (
	"errors"
	"fmt"
)

// errInUse says that another process has the store open.
var errInUse = errors.New("in use by another process")

// newerError says that a record is of a version this program does not know.
type newerError struct {
	Revision uint64
	Version  int
}

// Error says what to do about it.
func (e *newerError) Error() string {
	return fmt.Sprintf("revision %d: record version %d: a newer shunt wrote it, and this one reads up to %d: start that version", e.Revision, e.Version, recordVersion)
}

// errDamaged is the cause of whatever is wrong with bytes that were read.
var errDamaged = errors.New("damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// wayOut is what an operator can do about files that cannot be used.
const wayOut = "restore a backup of the folder, or move it away: the daemon then takes its configuration file, and services that are in the kernel keep running as foreign ones"
