package record

import (
	"errors"
	"fmt"
)

// What can be wrong with a stream. Records that a Reader has handed out before are
// right.
var (
	// ErrTruncated: it ends before its end frame.
	ErrTruncated = errors.New("the stream of connections is cut short")
	// ErrDamaged: it is none, or not as it was written.
	ErrDamaged = errors.New("the stream of connections is damaged")
	// ErrVersion: it is of another major version; as *VersionError.
	ErrVersion = errors.New("the stream of connections is of another version")
)

// VersionError is an ErrVersion with the version found.
type VersionError struct {
	Major, Minor uint16
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: it has %d.%d, this program reads %d.x", ErrVersion, e.Major, e.Minor, Major)
}

// Is makes it an ErrVersion.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }
