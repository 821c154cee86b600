package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// maxEdit is the largest body of a single edit.
const maxEdit = 1 << 20

// readBody decodes the request's body into v: one JSON object of at most
// maxEdit bytes, no unknown fields, nothing after it.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	if t := r.Header.Get("Content-Type"); t != "" {
		media, _, err := mime.ParseMediaType(t)
		// curl -d says application/x-www-form-urlencoded when told nothing.
		if err != nil || (media != "application/json" && media != "application/x-www-form-urlencoded") {
			return newProblem(http.StatusUnsupportedMediaType, "media-type",
				fmt.Sprintf("request body: content type %q is not supported", t), "send application/json")
		}
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEdit))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return newProblem(http.StatusRequestEntityTooLarge, "too-large",
			fmt.Sprintf("request body: larger than %d bytes", maxEdit), "")
	}
	if err != nil {
		return newProblem(http.StatusBadRequest, "bad-request", fmt.Sprintf("request body: %v", err), "")
	}
	return decode(text, v)
}

// decode reads one JSON object strictly.
func decode(text []byte, v any) error {
	if first := bytes.TrimLeft(text, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return newProblem(http.StatusBadRequest, "bad-request", "request body: want a JSON object", "")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return decodeProblem(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return newProblem(http.StatusBadRequest, "bad-request",
			fmt.Sprintf("request body: more after the object's end at byte %d", d.InputOffset()), "")
	}
	return nil
}

// decodeProblem locates what encoding/json found wrong. JSON that cannot be read
// is a bad request, JSON that does not fit the model is invalid.
func decodeProblem(err error) *Problem {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return newProblem(http.StatusBadRequest, "bad-request",
			fmt.Sprintf("request body: byte %d: %v", syntax.Offset, err), "")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return newProblem(http.StatusBadRequest, "bad-request", "request body: ends inside the object", "")
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := kind.Field
		if field == "" {
			field = "the object"
		}
		return invalid(fmt.Sprintf("request body: %s: a JSON %s does not fit %s", field, kind.Value, kind.Type), "")
	}
	return invalid("request body: "+strings.TrimPrefix(err.Error(), "json: "), "")
}
