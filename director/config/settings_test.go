package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config"
)

// The flag of the daemon and the key of the file are one setting.
func TestSetConnections(t *testing.T) {
	for _, text := range []string{"1024", "4Ki", "6000", "64Ki", "256Mi"} {
		file, err := config.Parse("f", []byte("director: {connections: {max: "+text+"}}"))
		if err != nil {
			t.Fatal(err)
		}
		got := defaults()
		if err := got.SetConnections(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(file.Director, got); diff != "" {
			t.Errorf("%s (-file +set):\n%s", text, diff)
		}
	}
	for text, want := range map[string]string{
		"1023":  "1023 is out of range: want 1Ki to 256Mi",
		"512Mi": "512Mi is out of range: want 1Ki to 256Mi",
		"many":  `"many" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`,
	} {
		got := defaults()
		if err := got.SetConnections(text); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
		if diff := cmp.Diff(defaults(), got); diff != "" {
			t.Errorf("%s was refused, and changed (-want +got):\n%s", text, diff)
		}
	}
}

func TestGeneric(t *testing.T) {
	for text, want := range map[string]bool{"{}": false, "{mode: native}": false, "{mode: generic}": true} {
		cfg, err := config.Parse("f", []byte("director: "+text))
		if err != nil || cfg.Director.Generic() != want {
			t.Errorf("%s: %v, error %v", text, cfg.Director.Generic(), err)
		}
	}
}
