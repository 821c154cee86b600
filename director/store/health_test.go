package store

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// drawHealth makes up a policy.
func drawHealth(t *rapid.T) director.Health {
	text := rapid.SampledFrom([]string{"", "a", "/b c"})
	command := rapid.SampledFrom([][]string{nil, {"/a"}, {"/a", "b", ""}})
	times := rapid.SampledFrom([]time.Duration{0, 1, time.Hour})
	health := director.Health{
		Initial: rapid.SampledFrom([]director.Initial{"", director.InitialUp}).Draw(t, "initial"),
		Down:    rapid.SampledFrom([]director.DownAction{"", director.DownRemove}).Draw(t, "down"),
		Quorum:  rapid.Uint32().Draw(t, "quorum"), Hysteresis: rapid.Uint32().Draw(t, "hysteresis"),
		Panic: rapid.Uint8().Draw(t, "panic"), SlowStart: times.Draw(t, "slow start"), Maintenance: text.Draw(t, "maintenance"),
		Damping: director.Damping{Changes: rapid.Uint16().Draw(t, "changes"), Hold: times.Draw(t, "hold")},
		Passive: director.Passive{Resets: rapid.Uint32().Draw(t, "resets"), Within: times.Draw(t, "within")},
		Notify:  director.Notify{Up: command.Draw(t, "notify"), FIFO: text.Draw(t, "fifo")},
		Load:    director.LoadPolicy{Maximum: rapid.Uint32().Draw(t, "maximum")}, Pool: text.Draw(t, "pool"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "checks") {
		check := realserver.Check{Kind: realserver.CheckTCP, Interval: times.Draw(t, "interval"), Rise: rapid.Uint16().Draw(t, "rise")}
		if rapid.Bool().Draw(t, "tls") {
			check.TLS = &realserver.TLSCheck{CA: text.Draw(t, "ca")}
		}
		if rapid.Bool().Draw(t, "http") {
			check.HTTP = &realserver.HTTPCheck{Path: text.Draw(t, "path")}
		}
		if rapid.Bool().Draw(t, "exchange") {
			check.Exchange = &realserver.ExchangeCheck{Send: rapid.SampledFrom([][]byte{nil, {0, 255}}).Draw(t, "send")}
		}
		health.Checks = append(health.Checks, check)
	}
	if rapid.Bool().Draw(t, "sorry") {
		health.Sorry = []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.NAT, Weight: 1}}
	}
	return health
}

// TestHealthJSON: each field of a policy, and of a check, is kept: it is set here by
// its type, so that one that is given next is too.
func TestHealthJSON(t *testing.T) {
	var want director.Health
	setAll(reflect.ValueOf(&want).Elem())
	text, err := json.Marshal(encodeHealth(want))
	if err != nil {
		t.Fatal(err)
	}
	var j healthJSON
	if err := decodeJSON(strings.NewReader(string(text)), &j); err != nil {
		t.Fatal(err)
	}
	// Not by Equal, which is one of those that may have been forgotten.
	if got := j.decode(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\n%s", got, want, text)
	}
}

// setAll sets a value, and all that it has, to something that is not zero.
func setAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[netip.AddrPort]() {
			v.Set(reflect.ValueOf(netip.MustParseAddrPort("10.0.0.1:80")))
			return
		}
		for i := range v.NumField() {
			setAll(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setAll(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		setAll(v.Index(0))
		setAll(v.Index(1))
	case reflect.String:
		v.SetString("word")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(7)
	default:
		panic("a kind of field that the test does not know: " + v.Kind().String())
	}
}
