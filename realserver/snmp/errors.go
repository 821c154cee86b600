package snmp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/gosnmp/gosnmp"

	"github.com/shunt-lb/shunt/realserver"
)

// errSilent is what no answer is.
var errSilent = errors.New("no answer")

// maxReason bounds the text of an error whose words are not ours, bytes.
const maxReason = 160

// explain turns an error of the protocol into one that says the same each time, with no
// ephemeral port in it, and with what to do where that is known.
func explain(err error, terms realserver.SNMP) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, gosnmp.ErrMaxRetriesExceeded):
		return fmt.Errorf("%w within %s", errSilent, terms.Timeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens on UDP port %d", errSilent, terms.Port)
	case errors.Is(err, gosnmp.ErrUnknownUsername), errors.Is(err, gosnmp.ErrWrongDigest), strings.Contains(err.Error(), "not authentic"):
		// gosnmp has no value for the last: hosts do not authenticate reports of these.
		return fmt.Errorf("the host refuses user %s as it is authenticated: see user, auth and auth-file", terms.User)
	case errors.Is(err, gosnmp.ErrDecryption):
		return errors.New("the host cannot decrypt what it is asked: see priv and priv-file")
	case errors.Is(err, gosnmp.ErrUnknownSecurityLevel):
		return errors.New("the host does not have the user at this level of security: see auth and priv")
	}
	return bare(err)
}

// bare returns what an error of the system says, without what it was about.
func bare(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if op := (*fs.PathError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	if strings.HasPrefix(text, "recover: ") { // gosnmp, of what it cannot read; a stack follows
		text = "the answer cannot be read"
	}
	return errors.New(strings.ToValidUTF8(text[:min(len(text), maxReason)], ""))
}
