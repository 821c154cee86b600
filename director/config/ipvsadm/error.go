package ipvsadm

import "strings"

// Exit statuses of ipvsadm.
const (
	ExitFailed  = 1   // while listing (ipvsadm.c, exit(1))
	ExitUsage   = 2   // ipvsadm.c, fail(2, …)
	ExitRefused = 255 // the kernel's refusal, an unknown command or option: -1
)

// UsageError is a command line that ipvsadm refuses.
type UsageError struct {
	// Text is what ipvsadm writes to the standard error, its newline excepted.
	Text string
	Exit int
	// Continue is whether a restore goes on with the next line: unknown options
	// are returned as a command's result (ipvsadm.c, parse_options), while all
	// else ends the program at once.
	Continue bool
}

// Error returns the text as one line.
func (e *UsageError) Error() string { return strings.TrimSpace(e.Text) }

// Stderr returns what ipvsadm writes to the standard error, byte for byte.
func (e *UsageError) Stderr() string { return e.Text + "\n" }
