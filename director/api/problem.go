package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/shunt-lb/shunt/director"
)

// problemType is the prefix of all problem types.
const problemType = "urn:shunt:problem:"

// notFoundHint says how to see what there is.
const notFoundHint = "`shunt service list` and `shunt server list` show what there is, `shunt pool list` what registered itself"

// newProblem returns a problem whose title is the status' text, and whose code is
// its kind.
func newProblem(status int, kind, detail, hint string) *Problem {
	return &Problem{
		Type: problemType + kind, Code: ProblemCode(kind), Title: http.StatusText(status), Status: status,
		Detail: shorten(detail), Hint: hint,
	}
}

// How much a problem says at most: what is wrong with a large body can be large.
const (
	maxLines = 100
	maxLine  = 2000
)

// shorten cuts lines that are too long, and too many lines.
func shorten(detail string) string {
	if len(detail) <= maxLine {
		return detail
	}
	lines := strings.SplitN(detail, "\n", maxLines+1)
	if len(lines) > maxLines {
		lines[maxLines] = fmt.Sprintf("… and %d more", 1+strings.Count(lines[maxLines], "\n"))
	}
	for i, line := range lines {
		if len(line) > maxLine {
			// The middle goes: what is quoted is long, not what is said of it.
			lines[i] = strings.ToValidUTF8(line[:maxLine/2]+" … "+line[len(line)-maxLine/2:], "")
		}
	}
	return strings.Join(lines, "\n")
}

// invalid is a request that can be read but not carried out as it stands.
func invalid(detail, hint string) *Problem {
	return newProblem(http.StatusUnprocessableEntity, "invalid", detail, hint)
}

// problemOf turns any error into the problem the client is told; nil stays nil.
func problemOf(err error) *Problem {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	p := kindOf(err)
	p.Code = codeOf(err, p.Code)
	return p
}

// kindOf returns the problem by the kind of error that the director returns.
func kindOf(err error) *Problem {
	if p := bypassedProblem(err); p != nil {
		return p
	}
	detail := err.Error()
	switch {
	case isA[*director.GuardError](err):
		return newProblem(http.StatusConflict, "guard", detail, "if that is meant, say so: --force (?force=true)")
	case isA[*director.ConflictError](err):
		return newProblem(http.StatusPreconditionFailed, "conflict", detail, "see what changed with `shunt history` and `shunt diff`, and try again")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusServiceUnavailable, "unfinished", detail, "it took too long, or shuntd is ending: try again")
	case errors.Is(err, director.ErrNoScheduler):
		return newProblem(http.StatusUnprocessableEntity, "scheduler-missing", detail,
			"a kernel that has no such module is too old for it, or was built without it")
	case errors.Is(err, director.ErrNoInterface):
		return newProblem(http.StatusUnprocessableEntity, "no-interface", detail, "`ip link` shows which there are")
	case errors.Is(err, director.ErrInvalid):
		return invalid(detail, "")
	case errors.Is(err, director.ErrExists):
		return newProblem(http.StatusConflict, "exists", detail,
			"change it with `shunt service edit` or `shunt server edit`")
	case errors.Is(err, director.ErrNotFound):
		return newProblem(http.StatusNotFound, "not-found", detail,
			notFoundHint)
	case errors.Is(err, director.ErrUnsupported):
		return newProblem(http.StatusNotImplemented, "unsupported", detail, "")
	case errors.Is(err, director.ErrFull):
		return newProblem(http.StatusInsufficientStorage, "full", detail,
			"remove something, or raise the limit in the configuration and restart shuntd")
	case errors.Is(err, director.ErrNoMemory):
		return newProblem(http.StatusInsufficientStorage, "full", detail, "ask for less, or free memory of the host first")
	case errors.Is(err, director.ErrBusy):
		return newProblem(http.StatusServiceUnavailable, "busy", detail, "try again")
	default:
		return newProblem(http.StatusInternalServerError, "internal", detail,
			"the daemon's log may say more: journalctl -u shuntd")
	}
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// writeProblem sends the problem as the answer.
func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client has gone: nobody to tell
}
