package api

import (
	"net/http"

	"github.com/shunt-lb/shunt/director"
)

func (h *Handler) getTimeouts(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, timeoutsModel(h.director.State().Timeouts))
}

// setTimeouts replaces all three.
func (h *Handler) setTimeouts(w http.ResponseWriter, r *http.Request) error {
	var body TimeoutsEdit
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	if body.TCP == nil || body.TCPFin == nil || body.UDP == nil {
		return invalid("timeouts: tcp, tcp-fin and udp are required", "PATCH changes only what it names")
	}
	return h.changeTimeouts(w, r, body)
}

// editTimeouts changes what the body names.
func (h *Handler) editTimeouts(w http.ResponseWriter, r *http.Request) error {
	var body TimeoutsEdit
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	return h.changeTimeouts(w, r, body)
}

func (h *Handler) changeTimeouts(w http.ResponseWriter, r *http.Request, edit TimeoutsEdit) error {
	timeouts, err := edit.timeouts()
	if err != nil {
		return err
	}
	ctx, cancel := change(r)
	defer cancel()
	if _, err := h.director.SetTimeouts(ctx, director.Request{}, timeouts); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, timeoutsModel(h.director.State().Timeouts))
}

// detach removes the data plane from the kernel and ends the daemon. The flag
// keeps later changes from a data plane that is no longer there.
func (h *Handler) detach(w http.ResponseWriter, r *http.Request) error {
	if h.opts.Detach == nil {
		return director.ErrUnsupported
	}
	ctx, cancel := change(r)
	defer cancel()
	if err := h.opts.Detach(ctx); err != nil {
		return err
	}
	h.detached.Store(true)
	w.WriteHeader(http.StatusNoContent)
	h.opts.Detached()
	return nil
}
