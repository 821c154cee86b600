package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
)

// Limits on the shape of a body: what is small as text can be large as values.
const (
	maxDepth  = 16
	maxValues = 1 << 19 // of a hundred thousand servers
	maxText   = 4096    // of a name or an address, in bytes
)

// inspect looks at the body's shape before it becomes a value: everything that
// encoding/json would pass over or not locate. v is what it will be decoded to.
func inspect(text []byte, v any) error {
	in := newInspector(text)
	if err := in.value(reflect.TypeOf(v).Elem(), 0); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return newProblem(http.StatusBadRequest, "bad-request", "request body: ends inside the object", "")
		}
		if p, ok := errors.AsType[*Problem](err); ok {
			return p
		}
		// Unmarshal knows better than Token where it is.
		if better := json.Unmarshal(text, new(json.RawMessage)); better != nil {
			err = better
		}
		return decodeProblem(text, err)
	}
	if _, err := in.decoder.Token(); !errors.Is(err, io.EOF) {
		return newProblem(http.StatusBadRequest, "bad-request",
			fmt.Sprintf("request body: more after the object's end at byte %d", in.decoder.InputOffset()), "")
	}
	return nil
}

// pathAt returns the path of the value that ends at, or holds, the offset.
func pathAt(text []byte, offset int64) string {
	in := newInspector(text)
	in.stop = offset
	_ = in.value(nil, 0) // errStop, or the error that is being located
	return in.where()
}

var errStop = errors.New("stop")

// inspector walks over a JSON value.
type inspector struct {
	decoder *json.Decoder
	models  map[reflect.Type]map[string]reflect.Type // fieldTypes of those seen
	path    []string                                 // such as "services", "[3]", "name"
	values  int
	stop    int64 // where to stop; 0: nowhere
}

func newInspector(text []byte) *inspector {
	in := &inspector{decoder: json.NewDecoder(bytes.NewReader(text)), models: make(map[reflect.Type]map[string]reflect.Type)}
	in.decoder.UseNumber()
	return in
}

// where writes the path: services[3].name.
func (in *inspector) where() string {
	return strings.ReplaceAll(strings.Join(in.path, "."), ".[", "[")
}

func (in *inspector) token() (json.Token, error) {
	t, err := in.decoder.Token()
	if err == nil && in.stop > 0 && in.decoder.InputOffset() >= in.stop {
		err = errStop
	}
	return t, err
}

// value reads one value. Nil stands for a type that is not known.
func (in *inspector) value(t reflect.Type, depth int) error {
	if in.values++; in.values > maxValues {
		return invalid(fmt.Sprintf("request body: more than %d values", maxValues), "")
	}
	if depth > maxDepth {
		return invalid(fmt.Sprintf("request body: %s: nested more than %d deep", in.where(), maxDepth), "")
	}
	token, err := in.token()
	if err != nil {
		return err
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch token := token.(type) {
	case string:
		if len(token) > maxText {
			return invalid(fmt.Sprintf("request body: %s: longer than %d bytes", in.where(), maxText), "")
		}
	case json.Delim:
		if token == '{' {
			return in.object(t, depth)
		}
		return in.array(t, depth)
	}
	return nil
}

func (in *inspector) array(t reflect.Type, depth int) error {
	var element reflect.Type
	if t != nil && t.Kind() == reflect.Slice {
		element = t.Elem()
	}
	for i := 0; in.decoder.More(); i++ {
		in.path = append(in.path, "["+strconv.Itoa(i)+"]")
		if err := in.value(element, depth+1); err != nil {
			return err
		}
		in.path = in.path[:len(in.path)-1]
	}
	_, err := in.token()
	return err
}

func (in *inspector) object(t reflect.Type, depth int) error {
	fields, found := in.models[t]
	if !found {
		fields = fieldTypes(t)
		in.models[t] = fields
	}
	seen := make(map[string]bool)
	for in.decoder.More() {
		token, err := in.token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok {
			return fmt.Errorf("%v is not a key", token)
		}
		in.path = append(in.path, key)
		// Names are compared as encoding/json does: in any case.
		folded := fold(key)
		field, known := fields[folded]
		if fields != nil && !known {
			return invalid(fmt.Sprintf("request body: unknown field %q%s", harmless(key), in.inside()), "")
		}
		if seen[folded] {
			return invalid(fmt.Sprintf("request body: %s is given twice", in.where()), "")
		}
		seen[folded] = true
		if err := in.value(field, depth+1); err != nil {
			return err
		}
		in.path = in.path[:len(in.path)-1]
	}
	_, err := in.token()
	return err
}

// inside names what holds the field that the path ends with.
func (in *inspector) inside() string {
	outer := inspector{path: in.path[:len(in.path)-1]}
	if where := outer.where(); where != "" {
		return " in " + where
	}
	return ""
}

// fieldTypes returns the types of a model's fields by their folded JSON names;
// nil if the type is no model.
func fieldTypes(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	fields := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[fold(name)] = t.Field(i).Type
	}
	return fields
}

// fold makes names that differ in case alone the same: ſ and the Kelvin sign are
// s and k to encoding/json.
func fold(s string) string { return strings.ToLower(strings.ToUpper(s)) }
