package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration that is a Go duration string in JSON: "15m0s".
type Duration time.Duration

// String returns the Go duration string.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a duration string; a bare number has no unit and is
// refused.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s is not a duration: want a string with a unit such as \"15m\"", text)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: want a number with a unit such as \"15m\"", s)
	}
	*d = Duration(v)
	return nil
}

// Error returns the detail: the client returns a Problem as it came.
func (p *Problem) Error() string { return p.Detail }

// text returns the problem as JSON, on one line.
func (p *Problem) text() []byte {
	text, _ := json.Marshal(p) // a struct of texts and a number has no error
	return text
}

// lastLine is the last line of a list of connections, where it is none: the problem
// that ended the walk, or the cursor of the next part.
type lastLine struct {
	Problem *Problem `json:"problem"`
	Next    string   `json:"next"`
}
