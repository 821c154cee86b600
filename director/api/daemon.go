package api

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/shunt-lb/shunt/director"
)

// GetDoctor answers getDoctor.
func (e endpoints) GetDoctor(w http.ResponseWriter, r *http.Request) {
	e.read(w, func() (any, error) {
		if e.opts.Doctor == nil {
			return nil, fmt.Errorf("doctor: %w", director.ErrUnsupported)
		}
		e.examining.Lock()
		defer e.examining.Unlock()
		findings, err := e.opts.Doctor(r.Context())
		if err != nil {
			return nil, fmt.Errorf("inspect the host: %w", err)
		}
		report := DoctorReport{Findings: []Finding{}}
		for _, f := range findings {
			f.Ok = f.Severity == FindingSeverityOk || f.Severity == FindingSeverityInfo
			report.Findings = append(report.Findings, f)
		}
		return report, nil
	})
}

// Reload answers reload.
func (e endpoints) Reload(w http.ResponseWriter, r *http.Request, p ReloadParams) {
	e.change(w, r, terms{p.IfMatch, p.ShuntWhy, p.Force}, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		if e.opts.Reload == nil {
			return director.Outcome{}, "", fmt.Errorf("reload: %w", director.ErrUnsupported)
		}
		outcome, err := e.opts.Reload(ctx, by)
		return outcome, "", err
	})
}

// Detach answers detach: it removes the data plane from the kernel and ends the
// daemon. The flag keeps later changes from a data plane that is no longer
// there.
func (e endpoints) Detach(w http.ResponseWriter, r *http.Request) {
	err := func() error {
		if e.opts.Detach == nil {
			return fmt.Errorf("detach: %w", director.ErrUnsupported)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
		defer cancel()
		return e.opts.Detach(ctx)
	}()
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	e.detached.Store(true)
	w.WriteHeader(http.StatusNoContent)
	e.opts.Detached()
}

// GetOpenAPI answers getOpenAPI.
func (e endpoints) GetOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(document) // the client has gone: nobody to tell
}

// GetMetrics answers getMetrics.
func (e endpoints) GetMetrics(w http.ResponseWriter, r *http.Request) {
	if e.opts.Metrics == nil {
		writeProblem(w, problemOf(fmt.Errorf("metrics: %w", director.ErrUnsupported)))
		return
	}
	e.opts.Metrics.ServeHTTP(w, r)
}

// GetHealth answers getHealth.
func (e endpoints) GetHealth(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, "ok")
}

// GetReadiness answers getReadiness.
func (e endpoints) GetReadiness(w http.ResponseWriter, _ *http.Request) {
	if err := e.ready(); err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeText(w, http.StatusOK, "ready")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client has gone: nobody to tell
}
