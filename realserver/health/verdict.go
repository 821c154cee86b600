package health

import (
	"bytes"
	"crypto/md5" //nolint:gosec // keepalived's digests
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
)

// of judges a response. Its body is read only if the check looks at it, as far as needed.
func (v verdict) of(response *http.Response, s *shared) Result {
	result := Result{Detail: fmt.Sprintf("status %d", response.StatusCode)}
	if !v.hasStatus(response.StatusCode) {
		result.Err = fmt.Errorf("status %d is not one that will do", response.StatusCode)
		return result
	}
	if v.match == nil && v.digest == "" {
		return result
	}
	result.Err = v.body(response.Body, s)
	return result
}

func (v verdict) hasStatus(status int) bool {
	for _, r := range v.status {
		if status >= int(r.First) && status <= int(r.Last) {
			return true
		}
	}
	return false
}

// body judges a body. What is kept in memory is its first MiB at most, and only for an
// expression.
func (v verdict) body(body io.Reader, s *shared) error {
	var sum hash.Hash
	if v.digest != "" {
		sum = sha256.New()
		if len(v.digest) == 2*md5.Size {
			sum = md5.New() //nolint:gosec // see above
		}
		body = io.TeeReader(body, sum)
	}
	if v.match != nil {
		buffer := s.bodies.Get().(*bytes.Buffer)
		defer s.giveBody(buffer)
		if _, err := buffer.ReadFrom(io.LimitReader(body, maxMatch)); err != nil {
			return because("read the body", err)
		}
		if !v.match.Match(buffer.Bytes()) {
			return fmt.Errorf("%q is not in the body's %d bytes", v.match, buffer.Len())
		}
	}
	if sum == nil {
		return nil
	}
	read, err := io.CopyN(io.Discard, body, maxDigest)
	switch {
	case err == nil && read == maxDigest:
		return fmt.Errorf("the body has more than %d bytes: its digest is not made", maxDigest)
	case !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return because("read the body", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != v.digest {
		return fmt.Errorf("the body's digest is %s", got)
	}
	return nil
}
