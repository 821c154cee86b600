package bpf

import "errors"

// The errors callers branch on. Each is wrapped with the act and its object.
var (
	// ErrInUse: another process holds the pin directory or the interface.
	ErrInUse = errors.New("in use")
	// ErrForeign: the pin directory holds something Shunt did not make.
	ErrForeign = errors.New("not Shunt's")
	// ErrLayout: pinned maps have another layout than this program's.
	ErrLayout = errors.New("another version's layout")
	// ErrNoBPFFS: there is no BPF file system where the pins should go.
	ErrNoBPFFS = errors.New("no BPF file system")
	// ErrKernel: the kernel lacks something the programs need.
	ErrKernel = errors.New("kernel not supported")
	// ErrNotFound: no such element.
	ErrNotFound = errors.New("not found")
)
