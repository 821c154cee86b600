package decap

import "errors"

// The errors callers branch on. Each is wrapped with the act and its object.
var (
	// ErrInUse: another process holds the pin directory, or another XDP program the interface.
	ErrInUse = errors.New("in use")
	// ErrForeign: the pin directory holds something that is not the agent's.
	ErrForeign = errors.New("not shunt-agent's")
	// ErrVersion: the program in force is another version's.
	ErrVersion = errors.New("of another version of shunt-agent")
	// ErrNoBPFFS: there is no BPF file system where the pins should go.
	ErrNoBPFFS = errors.New("no BPF file system")
	// ErrKernel: the kernel lacks something the program needs.
	ErrKernel = errors.New("kernel not supported")
	// ErrNoNative: the interface's driver has no native XDP.
	ErrNoNative = errors.New("the driver has no native XDP")
)
