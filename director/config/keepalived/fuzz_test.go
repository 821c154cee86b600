package keepalived_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/keepalived"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/director/directortest/importtest"
)

// FuzzImport: no text makes Import panic, what comes out is valid and its notes
// are complete, and errors are located.
func FuzzImport(f *testing.F) {
	for name := range fixtures {
		data, err := os.ReadFile(filepath.Join("testdata", "fixtures", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{
		"", "{", "}", "\\", "\"", "$", "${", "$A=\\", "$A=\\\n$A\\\n\n$A", "~SEQ(", "~LST()", "~LST({},{})", "@", "@^ x", "include", "include ",
		"virtual_server", "virtual_server {", "virtual_server group", "virtual_server_group { }", "virtual_server_group a { ::/0 }",
		"virtual_server fwmark 1 { real_server ::1 { } }", "virtual_server 192.0.2.1 { real_server 192.0.2.1 }",
		"virtual_server_group a { 255.255.255.250-255.255.255.255 }\nvirtual_server group a { real_server 10.0.0.1 80 }",
		"global_defs { lvs_timeouts tcp }", "global_defs { lvs_sync_daemon a id }", "global_defs { lvs_sync_daemon \"\" }", "vrrp_instance { lvs_sync_daemon_interface }",
		"virtual_server 1.2.3.4 80 { real_server 1.2.3.4 80 { notify_up \"/a \xff\" MISC_CHECK {\nmisc_path \"/a \\c\xff\\x00\"\n} } }",
		"virtual_server 1.2.3.4 80 { real_server 1.2.3.4 80 { HTTP_GET {\nurl {\npath /\xff\nregex \\xff\n}\nvirtualhost \xff:\n} } }",
		"virtual_server 1.2.3.4 80 { real_server 1.2.3.4 80 { UDP_CHECK {\npayload zz\n} DNS_CHECK {\ntype\n} } }",
		"SSL { certificate /a/\nkey /b//c\n} global_defs {\nnotify_fifo /a/../b\n} virtual_server 1.2.3.4 80 { real_server 1.2.3.4 80 { SSL_GET { url { path / } } } }",
		"virtual_server fwmark 5 { real_server 1.2.3.4 { uthreshold 1\nweight 99999999999999999999 } persistence_granularity 0.0.0.0 }",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		result, err := keepalived.Import("k.conf", data, keepalived.Options{ID: "main", Files: files{"w.inc": file("weight 7")}})
		if err != nil {
			if located := (*translation.Error)(nil); !errors.As(err, &located) || located.File == "" {
				t.Errorf("error %v is not located", err)
			}
			return
		}
		if err := errors.Join(result.State.Validate(), director.IPVSFeatures().Check(result.State)); err != nil {
			t.Errorf("the state is not valid: %v", err)
		}
		importtest.Taken(t, result)
		for _, n := range result.Notes {
			if n.File == "" || n.Line == 0 && n.Kind != translation.Reminder || n.Kind == "" || n.Why == "" {
				t.Errorf("note %+v is not complete", n)
			}
			for _, key := range n.Services {
				if result.State.Service(key) < 0 {
					t.Errorf("note %s is of service %s, which is not there", n, key)
				}
			}
		}
	})
}
