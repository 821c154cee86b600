package config_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config"
)

func TestDifferences(t *testing.T) {
	if got := config.Differences(defaults(), defaults()); got != nil {
		t.Errorf("of equal settings: %v", got)
	}
	file := defaults()
	file.RemovalLimit, file.LogLevel, file.Reconcile, file.SocketGroup = 10, "debug", 500*time.Millisecond, "shunt"
	file.Interfaces = []string{"eth0", "eth1"}
	file.Echo, file.TunnelSources, file.LocalPorts.First = "stack", prefixes("192.0.2.2/32", "2001:db8::/112"), 2048
	var got []string
	for _, d := range config.Differences(defaults(), file) {
		text := d.String()
		if d.Restart {
			text += ", restart"
		}
		got = append(got, text)
	}
	want := []string{
		"director.interfaces: - → eth0, eth1, restart",
		"director.echo: service → stack, restart",
		"director.tunnel.sources: - → 192.0.2.2, 2001:db8::/112, restart",
		"director.fullnat.ports: 1024-65535 → 2048-65535, restart",
		"director.removal-limit: 50% → 10%",
		"director.reconcile: 2s → 500ms, restart",
		"director.socket-group: - → shunt, restart",
		"director.log.level: info → debug",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}

// No field of Settings is forgotten.
func TestDifferencesAreAll(t *testing.T) {
	var seen []string
	var change func(settings *config.Settings, v reflect.Value, name string)
	change = func(settings *config.Settings, v reflect.Value, name string) {
		old := reflect.ValueOf(v.Interface())
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				change(settings, v.Field(i), name+"."+v.Type().Field(i).Name)
			}
			return
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.String:
			v.SetString("other")
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.String {
				v.Set(reflect.ValueOf([]string{"other"}))
			} else {
				v.Set(reflect.ValueOf(prefixes("192.0.2.0/24")))
			}
		case reflect.Int, reflect.Int64:
			v.SetInt(12345)
		case reflect.Uint16, reflect.Uint32, reflect.Uint64:
			v.SetUint(12345)
		default:
			t.Fatalf("%s is a %s", name, v.Kind())
		}
		all := config.Differences(defaults(), *settings)
		if len(all) != 1 {
			t.Fatalf("%s: %v", name, all)
		}
		seen = append(seen, all[0].Key)
		v.Set(old)
	}
	settings := defaults()
	change(&settings, reflect.ValueOf(&settings).Elem(), "Settings")
	slices.Sort(seen)
	seen = slices.Compact(seen) // a range of ports has two ends
	if diff := cmp.Diff(slices.Sorted(slices.Values(config.SettingKeys())), seen); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}
