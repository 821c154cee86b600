package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
)

// How large bodies may be: a single edit's, and a whole configuration's.
const (
	maxEdit          = 1 << 20
	maxConfiguration = 16 << 20
)

// readBody decodes the request's body into v: one JSON object of at most max
// bytes, no unknown fields, no field twice, nothing after it.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, v any, max int64) error {
	if err := checkMedia(r); err != nil {
		return err
	}
	setReadDeadline(w, time.Now().Add(h.limits.body)) // anew: it may have waited for its turn
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, max))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return newProblem(http.StatusRequestEntityTooLarge, "too-large",
			fmt.Sprintf("request body: larger than %d bytes", max), "")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newProblem(http.StatusRequestTimeout, "timeout", "request body: took too long to come", "")
	}
	if err != nil {
		return newProblem(http.StatusBadRequest, "bad-request", fmt.Sprintf("request body: %v", err), "")
	}
	setReadDeadline(w, time.Time{}) // or the change would end with it
	return decode(text, v)
}

// readConfiguration decodes a body that is a whole configuration. Not all are
// read at once.
func (e endpoints) readConfiguration(w http.ResponseWriter, r *http.Request) (Configuration, error) {
	var body Configuration
	giveBack, err := e.room(r)
	if err != nil {
		return body, err
	}
	defer giveBack()
	err = e.readBody(w, r, &body, maxConfiguration)
	if err == nil && body.Services == nil {
		// A misread file must not become an empty configuration.
		err = invalid("configuration: services is required", `to remove all, say so: "services": []`)
	}
	return body, err
}

// checkMedia wants JSON, and the body as it is.
func checkMedia(r *http.Request) error {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return newProblem(http.StatusUnsupportedMediaType, "media-type",
			fmt.Sprintf("request body: content encoding %q is not supported", coding), "send it as it is")
	}
	t := r.Header.Get("Content-Type")
	if t == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(t)
	// curl -d says application/x-www-form-urlencoded when told nothing.
	if err != nil || (media != "application/json" && media != "application/x-www-form-urlencoded") {
		return newProblem(http.StatusUnsupportedMediaType, "media-type",
			fmt.Sprintf("request body: content type %q is not supported", t), "send application/json")
	}
	return nil
}

// decode reads one JSON object strictly.
func decode(text []byte, v any) error {
	if first := bytes.TrimLeft(text, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return newProblem(http.StatusBadRequest, "bad-request", "request body: want a JSON object", "")
	}
	if err := inspect(text, v); err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return decodeProblem(text, err)
	}
	return nil
}

// decodeProblem locates what encoding/json found wrong. JSON that cannot be read
// is a bad request, JSON that does not fit the model is invalid.
func decodeProblem(text []byte, err error) *Problem {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		if syntax.Offset >= int64(len(bytes.TrimRight(text, " \t\r\n"))) && strings.Contains(syntax.Error(), "unexpected end") {
			return newProblem(http.StatusBadRequest, "bad-request", "request body: ends inside the object", "")
		}
		return newProblem(http.StatusBadRequest, "bad-request",
			fmt.Sprintf("request body: byte %d: %v", syntax.Offset, err), "")
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := pathAt(text, kind.Offset)
		if field == "" {
			field = "the object"
		}
		return invalid(fmt.Sprintf("request body: %s: a JSON %s does not fit %s", field, kind.Value, kind.Type), "")
	}
	return invalid("request body: "+strings.TrimPrefix(err.Error(), "json: "), "")
}
