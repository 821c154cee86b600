package ipvsadm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/api"
)

// A daemon that is being restarted is away for a moment. The kernel's IPVS never is,
// so that those who call ipvsadm do not repeat what failed: a server whose removal
// fails ldirectord takes for removed, and leaves it where it is for good (its
// _service_down, which forgets the server before it calls ipvsadm).
const again = 50 * time.Millisecond // from one attempt to the next

// restart waits for a daemon that is being restarted.
type restart struct {
	patience time.Duration
	until    time.Time // zero: it has not been away yet
}

// awaited pauses after an error of a daemon that ends, is away or begins; false for
// another error, and when there is no patience left.
func (r *restart) awaited(ctx context.Context, err error) bool {
	if !isRestart(err) {
		return false
	}
	if r.until.IsZero() {
		r.until = time.Now().Add(r.patience)
	}
	return time.Now().Before(r.until) && pause(ctx, again)
}

// isRestart reports whether a restart of the daemon may be the cause: nobody
// listens, the connection broke, or the daemon says that it ends or begins.
func isRestart(err error) bool {
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		return problem.Status == http.StatusServiceUnavailable
	}
	for _, sign := range []error{io.EOF, io.ErrUnexpectedEOF, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}

// patiently asks the daemon, again where it is being restarted. What is asked must
// not matter when it is asked twice.
func (s *session) patiently(ask func() error) error {
	r := restart{patience: s.options.Patience}
	for {
		err := ask()
		if !r.awaited(s.ctx, err) {
			return err
		}
	}
}
