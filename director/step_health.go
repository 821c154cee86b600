package director

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/shunt-lb/shunt/realserver"
)

// explainHealth adds what changes of the health policies of services that stay: to the
// step of the service if it is edited, else as a step by itself.
func explainHealth(steps []Step, from, to State) []Step {
	for was, is := range pairs(from, to) {
		if was == nil || is == nil || was.Health.Equal(is.Health) {
			continue
		}
		changes := redacting(diffFields(was.Health.fields(), is.Health.fields()), was.Health.Redact().fields(), is.Health.Redact().fields())
		step := Step{Action: ActionChange, Service: is.Key, Changes: changes}
		at := -1
		for i := range steps {
			if steps[i].Service == is.Key && !steps[i].Server.IsValid() && steps[i].Action == ActionChange {
				at = i
			}
		}
		if at < 0 {
			steps = append(steps, step)
			continue
		}
		steps[at].Changes = append(steps[at].Changes, step.Changes...)
	}
	return steps
}

func (h Health) fields() []field {
	checks, sorry := brief(reflect.ValueOf(h.Checks)), brief(reflect.ValueOf(h.Sorry))
	h.Checks, h.Sorry = nil, []realserver.Server(nil)
	return []field{{"check", checks}, {"health", brief(reflect.ValueOf(h))}, {"sorry", sorry}}
}

// brief returns what a value has that is not zero, in words close to the
// configuration's; empty for nothing.
func brief(v reflect.Value) string {
	if v.IsZero() && v.Kind() != reflect.Struct {
		return ""
	}
	if text, ok := v.Interface().(fmt.Stringer); ok && v.Kind() != reflect.Pointer {
		return text.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		return brief(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%q", v.Bytes())
		}
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = brief(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Struct:
		var parts []string
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				parts = append(parts, hyphened(v.Type().Field(i).Name)+": "+brief(v.Field(i)))
			}
		}
		if len(parts) == 0 {
			return ""
		}
		return "{" + strings.Join(parts, ", ") + "}"
	default:
		return fmt.Sprint(v.Interface())
	}
}

// hyphened turns SlowStart into slow-start.
func hyphened(name string) string {
	var b strings.Builder
	before := 'A'
	for _, r := range name {
		if unicode.IsUpper(r) && unicode.IsLower(before) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
		before = r
	}
	return b.String()
}
