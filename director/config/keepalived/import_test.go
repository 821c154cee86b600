package keepalived_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/keepalived"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// files are includes in memory.
type files fstest.MapFS

func (f files) ReadFile(name string) ([]byte, error) { return fs.ReadFile(fstest.MapFS(f), name) }

func (f files) Glob(pattern string) ([]string, error) { return fs.Glob(fstest.MapFS(f), pattern) }

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// farm is a virtual server around the lines of its real server, or what stands for
// it.
func farm(lines string) string {
	return "virtual_server 192.0.2.1 80 {\nprotocol TCP\nlvs_sched rr\nlvs_method NAT\nreal_server 10.0.0.1 80 {\n" + lines + "\n}\n}\n"
}

// TestErrors says what makes a text unreadable, and where.
func TestErrors(t *testing.T) {
	loop := files{"a/l.conf": file("# 1\ninclude l.conf\n"), "a/deep.conf": file("include ../b/*.conf"), "b/deep.conf": file("include ../a/d*.conf")}
	for name, test := range map[string]struct{ text, want string }{
		"no_end":         {"virtual_server 192.0.2.1 80 {\nreal_server 10.0.0.1 80 {\n}\n", "a/k.conf:1: the block virtual_server 192.0.2.1 80 has no }"},
		"no_end_inside":  {"# x\nvirtual_server 192.0.2.1 80 {\n\nreal_server 10.0.0.1 80 {", "a/k.conf:4: the block real_server 10.0.0.1 80 has no }"},
		"too_many_ends":  {"global_defs { }\n}\n", "a/k.conf:2: no block ends with this }"},
		"no_name":        {"{\n}\n", "a/k.conf:1: the block that begins here has no name"},
		"second_block":   {"global_defs { }\n{ }\n", "a/k.conf:2: the block that begins here has no name"},
		"nul":            {"a\x00b", "a/k.conf: the file has a NUL byte at offset 1: is it a text file?"},
		"deep":           {strings.Repeat("a {\n", 60), "a/k.conf:51: more than 50 blocks lie in each other"},
		"includes_self":  {"include l.conf", "a/l.conf:2: include a/l.conf: the file includes itself"},
		"includes_loop":  {"include deep.conf", "b/deep.conf:1: include a/deep.conf: the file includes itself"},
		"self_reference": {"$A=$A x\n\n$A\n", "a/k.conf:3: a parameter on the line contains itself"},
		"many_lines":     {"$A=b \\\n$A \\\n\n$A\n", "a/k.conf:2: definitions and repetitions lie more than 64 deep in each other: does one contain itself?"},
		"growth":         {"$A=${B}${B}\n$B=${A}${A}\n${A}\n", "a/k.conf:3: the line becomes too long, or the configuration too large, as it is expanded"},
		"endless":        {"~SEQ(A, 1, 2000000000)\n", "a/k.conf:1: the line becomes too long, or the configuration too large, as it is expanded"},
		"many":           {"~SEQ(A, 1, 2000) ~SEQ(B, 1, 2000) x\n", "a/k.conf:1: the configuration has more than 500000 directives up to here"},
		"many_servers": {
			"virtual_server_group g { 10.0.0.0/20 80 }\nvirtual_server group g {\n~SEQ(A, 1, 200) real_server 10.1.0.${A} 80 { weight 1 }\n}",
			"a/k.conf:2: there are more than 131072 servers in all services up to virtual_server group g",
		},
		"many_includes": {"include {a,b}{c,d}{e,f}{g,h}{i,j}{k,l}{m,n}{o,p}{q,r}{s,t}.conf", "a/k.conf:1: include a/{a,b}{c,d}{e,f}{g,h}{i,j}{k,l}{m,n}{o,p}{q,r}{s,t}.conf stands for too many files"},
		"bad_pattern":   {"include [", "a/k.conf:1: include a/[: syntax error in pattern"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := keepalived.Import("a/k.conf", []byte(test.text), keepalived.Options{Files: loop})
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if located := (*translation.Error)(nil); !errors.As(err, &located) {
				t.Errorf("the error is %T", err)
			}
			if name != "bad_pattern" && !errors.Is(err, director.ErrInvalid) {
				t.Errorf("%v is not %v", err, director.ErrInvalid)
			}
			if name == "bad_pattern" && !errors.Is(err, path.ErrBadPattern) {
				t.Errorf("%v is not %v", err, path.ErrBadPattern)
			}
		})
	}
}

// TestSyntax says what texts are the same as others.
func TestSyntax(t *testing.T) {
	include := files{
		"a/w.inc": file("weight 7\n"), "a/sub/x.conf": file("include y.inc\n"), "a/sub/y.inc": file("weight 7\n"), "w.inc": file("weight 9"),
	}
	want := "service tcp://192.0.2.1:80 rr vip external\n  server 10.0.0.1:80 nat weight 7\n"
	for name, text := range map[string]string{
		"plain":             farm("weight 7"),
		"crlf":              strings.ReplaceAll(farm("weight 7"), "\n", "\r\n"),
		"byte_order_mark":   "\ufeff" + farm("weight 7"),
		"comments":          farm("weight 7 # weight 8\n! weight 9\n#weight 9\n   ! \\"),
		"quoted_comment":    farm("\"weight\" \"7\"#\"weight 8"),
		"one_line":          strings.ReplaceAll(farm("weight 7"), "{\nweight 7\n}\n}", "{ weight 7 } }"),
		"brace_below":       strings.ReplaceAll(farm("weight 7"), " {\n", "\n\n# a\n{\n"),
		"braces_in_words":   strings.ReplaceAll(farm("weight 7"), " {\n", "{"),
		"parameter":         "$W=7\n" + farm("weight $W"),
		"parameter_braces":  "$W=weight\n" + farm("${W} 7"),
		"parameter_last":    "$W=1\n$W=7\n" + farm("weight $W"),
		"parameter_later":   "$W=${V}\n$V=7\n" + farm("weight $W"),
		"parameter_within":  farm("$W=7\nweight $W"),
		"parameter_name":    "$W=6\n" + farm("$W2=7\nweight ${W2}"),
		"empty_parameter":   "$NOT=\n" + farm("weight 7 $NOT"),
		"several_lines":     "$W= \\\n  # none \\\nweight \\\n 8\n\n" + farm("weight 7") + "$V= \\\nno\n",
		"lines_end_empty":   "$W=no \\\n\n" + farm("weight 7"),
		"lines_used":        "$W=weight 8 \\\n weight 6 \\\nweight 7\n" + farm("$W"),
		"lines_after_word":  "$W=7 \\\n# nothing\n" + farm("weight $W"),
		"id":                farm("@main weight 7\n@other weight 8\n@^main weight 9\n@main\n"),
		"not_id":            farm("@^other weight 7"),
		"id_of_parameter":   "$O=@other\n" + farm("weight 7\n$O weight 8"),
		"parameter_of_id":   "@main $W=7\n@other $W=8\n" + farm("weight $W"),
		"lines_of_id":       "@other $W=weight 8 \\\n\n@main $W=weight 7 \\\n\n" + farm("$W"),
		"sequence":          farm("~SEQ(N, 3, 2, 7) weight ${N}"),
		"sequence_down":     farm("~SEQ(N, 9, 7) weight ${N}"),
		"sequence_one":      farm("~SEQ(N, 7) weight $N"),
		"sequence_hex":      farm("~SEQx(N, 0x7) weight $N"),
		"sequence_negative": "$N=7\n" + farm("~SEQ(M, -2) weight 7${M}\nweight $N"),
		"list":              farm("~LST(N, 8, 7) weight $N"),
		"list_of_pairs":     farm("~LST({N, M}, {8, weight}, { 7 , weight }) $M $N"),
		"include":           farm("include w.inc"),
		"include_glob":      farm("includea ?.inc"),
		"include_relative":  farm("include sub/*.conf"),
		"include_braces":    farm("include {none,{no,w}}.inc"),
		"instance":          "$W=7 ${_INSTANCE}\n" + farm("@main weight 7"),
	} {
		t.Run(name, func(t *testing.T) {
			result, err := keepalived.Import("a/k.conf", []byte(text), keepalived.Options{ID: "main", Files: include})
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			result.Notes = nil
			if diff := cmp.Diff(want, result.String()); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, text)
			}
		})
	}
}

// TestNotes says what is noted of lines that are not the real server's weight.
func TestNotes(t *testing.T) {
	for name, test := range map[string]struct{ lines, want string }{
		"unknown":         {"fly high", "k.conf:6: not carried: fly high: unknown directive"},
		"no_id":           {"@main weight 7", "k.conf:6: left out: @main weight 7: the line is for some machines only, and no id says which this one is"},
		"no_files":        {"include w.inc", "k.conf:6: left out: include w.inc: includes are not read here: translate the file itself"},
		"quote":           {`weight 1 "x`, `k.conf:6: left out: weight 1 "x: a quote has no end: what is behind it is not read`},
		"continued":       {"weight 1 \\", `k.conf:6: not carried: weight 1: the \ at the end means nothing here: only definitions go on over lines`},
		"sequence":        {"~SEQ(N) weight ${N}", "k.conf:6: left out: ~SEQ(N) weight ${N}: want a parameter's name and one to three numbers"},
		"sequence_words":  {"~SEQ(N, a) weight ${N}", `k.conf:6: left out: ~SEQ(N, a) weight ${N}: "a" is not a number`},
		"sequence_four":   {"~SEQ(N, 1,2,3,4) x", "k.conf:6: left out: ~SEQ(N, 1,2,3,4) x: want one to three numbers"},
		"sequence_never":  {"~SEQ(N, 1,-1,3) x", "k.conf:6: left out: ~SEQ(N, 1,-1,3) x: the steps never come to the end"},
		"sequence_hex":    {"~SEQx(N, -1) x", "k.conf:6: left out: ~SEQx(N, -1) x: ~SEQx has no negative numbers"},
		"list":            {"~LST(N) x", "k.conf:6: left out: ~LST(N) x: want a parameter's name and values"},
		"list_name":       {"~LST(1, 2) x", `k.conf:6: left out: ~LST(1, 2) x: "1" is not a parameter's name`},
		"list_values":     {"~LST(N, {1, 2}) x", "k.conf:6: left out: ~LST(N, {1, 2}) x: {1, 2} are more values than there are names"},
		"list_brace":      {"~LST(N, {1, 2) x", "k.conf:6: left out: ~LST(N, {1, 2) x: a { has no }"},
		"list_comma":      {"~LST({N} M, 2) x", "k.conf:6: left out: ~LST({N} M, 2) x: want a comma behind }"},
		"repeat":          {"~FOR(N, 2) x", "k.conf:6: left out: ~FOR(N, 2) x: unknown ~FOR: want ~SEQ, ~SEQx or ~LST"},
		"repeat_brackets": {"~SEQ N x", "k.conf:6: left out: ~SEQ N x: want ~SEQ(name, values) or ~LST(name, values)"},
		"random":          {"notify_up /bin/${_RANDOM 2 5}", "k.conf:6: differs: notify_up /bin/${_RANDOM 2 5}: _RANDOM is another number with each start of keepalived: the smallest one was taken"},
		"tunnel_type":     {"lvs_method TUN type", "k.conf:6: differs: lvs_method TUN type: type has no value"},
		"tunnel_port":     {"lvs_method TUN type gue port 0", `k.conf:6: differs: lvs_method TUN type gue port 0: "0" is not a port: want 1 to 65535`},
		"tunnel_no_port":  {"lvs_method TUN type gue", "k.conf:6: differs: lvs_method TUN type gue: gue wants a port, and other types have none"},
		"tunnel_checksum": {"lvs_method TUN csum", "k.conf:6: differs: lvs_method TUN csum: ipip has no checksum"},
		"tunnel_remote":   {"lvs_method TUN type gre remcsum", "k.conf:6: differs: lvs_method TUN type gre remcsum: gre has no remote checksum"},
		"tunnel_unknown":  {"lvs_method TUN type vxlan", `k.conf:6: differs: lvs_method TUN type vxlan: unknown type "vxlan" of a tunnel: want ipip, gue or gre`},
		"tunnel_option":   {"lvs_method TUN fast", `k.conf:6: differs: lvs_method TUN fast: unknown option "fast" of a tunnel`},
		"method_missing":  {"lvs_method", "k.conf:6: differs: lvs_method: want NAT, DR or TUN"},
		"weight":          {"weight 2147483648", `k.conf:6: differs: weight 2147483648: "2147483648" is not a number from 0 to 2147483647: keepalived ignores the directive`},
		"weight_missing":  {"weight", "k.conf:6: differs: weight: the value is missing: keepalived does not start with it; here the directive is ignored"},
		"block_missing":   {"}\nreal_server 10.0.0.2 80\n}\nvirtual_server 192.0.2.9 80 {\nreal_server 10.0.0.1 80 {", "k.conf:7: differs: real_server 10.0.0.2 80: the block is missing: keepalived takes the } that follows for its end"},
		"control":         {"fly \u009b31m\u2028", "k.conf:6: not carried: fly  31m : unknown directive"},
		"bytes":           {"fly \x9b31m", "k.conf:6: not carried: fly \ufffd31m: unknown directive"},
		"thresholds":      {"lthreshold 5", "k.conf:5: left out: real_server 10.0.0.1 80: lower threshold 5 is greater than the upper one (0)"},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := keepalived.Import("k.conf", []byte(farm(test.lines)), keepalived.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var notes []string
			for _, n := range result.Notes {
				notes = append(notes, n.String())
			}
			if got := strings.Join(notes, "\n"); !strings.Contains(got, test.want) {
				t.Errorf("want %s\ngot  %s", test.want, got)
			}
		})
	}
}

// TestSyncDaemon says what becomes of sync daemons and the VRRP instances that
// decide on them.
func TestSyncDaemon(t *testing.T) {
	const instance = "\nvrrp_instance VI {\nvirtual_router_id 9\n}\n"
	for name, test := range map[string]struct{ text, want string }{
		"both":         {"global_defs { lvs_sync_daemon eth1 }", "master on eth1, id 0, 224.0.0.81:8848, ttl 1"},
		"id":           {"global_defs { lvs_sync_daemon eth1 id 3 port 1 ttl 2 maxlen 100 group ff02::5 }", "master on eth1, id 3, [ff02::5]:1, ttl 2, 100 bytes at most"},
		"instance":     {"global_defs { lvs_sync_daemon eth1 inst VI }" + instance, "master on eth1, id 9, 224.0.0.81:8848, ttl 1"},
		"old_instance": {"global_defs { lvs_sync_daemon eth1 VI }" + instance, "master on eth1, id 9, 224.0.0.81:8848, ttl 1"},
		"old_id":       {"global_defs { lvs_sync_daemon eth1 VI 4 }" + instance, "master on eth1, id 4, 224.0.0.81:8848, ttl 1"},
		"given_id":     {"global_defs { lvs_sync_daemon eth1 inst VI id 0 }" + instance, "master on eth1, id 0, 224.0.0.81:8848, ttl 1"},
		"wrong_values": {"global_defs { lvs_sync_daemon eth1 id 256 port x ttl 0 maxlen 65508 group 10.0.0.1 }", "master on eth1, id 0, 224.0.0.81:8848, ttl 1"},
		"no_instance":  {"global_defs { lvs_sync_daemon eth1 inst NONE id 9 }" + instance, ""},
		"no_vrid":      {"global_defs { lvs_sync_daemon eth1 inst VI id 9 }\nvrrp_instance VI {\n}", "master on eth1, id 9, 224.0.0.81:8848, ttl 1"},
		"no_text":      {"global_defs { lvs_sync_daemon \xff\xfe }", ""},
		"no_interface": {"global_defs { lvs_sync_daemon }", ""},
		"long_name":    {"global_defs { lvs_sync_daemon abcdefghijklmnop }", ""},
		"first_counts": {"global_defs { lvs_sync_daemon eth1\nlvs_sync_daemon eth2 }", "master on eth1, id 0, 224.0.0.81:8848, ttl 1"},
		"mixed_families": {
			"global_defs { lvs_sync_daemon eth1 }\nvirtual_server 192.0.2.1 80 {\nlvs_sched rr\nprotocol TCP\nreal_server 2001:db8::1 80 { lvs_method TUN }\n}",
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := keepalived.Import("k.conf", []byte(test.text), keepalived.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(result.State.Sync) > 0 {
				if len(result.State.Sync) != 2 || result.State.Sync[1].Role != director.SyncBackup {
					t.Errorf("daemons %v, want one of each role", result.State.Sync)
				}
				got = result.State.Sync[0].String()
			} else if len(result.Notes) == 0 {
				t.Error("there is no note on what became of the daemon")
			}
			if got != test.want {
				t.Errorf("daemon %s, want %s\n%s", got, test.want, result)
			}
		})
	}
}

// TestIncludeUnreadable says that a file that cannot be read is an error, with
// its cause, unless keepalived goes on without it.
func TestIncludeUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, translation.MaxBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "k.conf")
	_, err := keepalived.Import(name, []byte("\ninclude b*"), keepalived.Options{Files: translation.Host{}})
	if want := fmt.Sprintf("%[1]s/k.conf:2: include %[1]s/big: read %[1]s/big: it is larger than 4 MiB", dir); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	result, err := keepalived.Import(name, []byte("include *o*\n"+farm("weight 7")), keepalived.Options{Files: translation.Host{}})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.String(); len(result.State.Services) != 1 || !strings.Contains(got, "folder: it is not a regular file: keepalived skips it") ||
		!strings.Contains(got, "gone: no such file or directory: keepalived skips it") {
		t.Errorf("result:\n%s", got)
	}
}

// TestManyNotes says that a group of many addresses costs little, however much there
// is to be told of its virtual server.
func TestManyNotes(t *testing.T) {
	const lines = 2000
	text := "virtual_server_group g {\n10.1.0.0/20 80\n}\nvirtual_server group g {\nprotocol TCP\nlvs_sched rr\nlvs_method NAT\nreal_server 10.0.0.1 80 {\n}\n" +
		strings.Repeat(" foo\n", lines) + "}"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	result, err := keepalived.Import("k.conf", []byte(text), keepalived.Options{})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.State.Services) != 4096 || len(result.Notes) != lines {
		t.Fatalf("%d services, %d notes", len(result.State.Services), len(result.Notes))
	}
	if last := result.Notes[lines-1]; len(last.Services)+last.More != 4096 || last.More == 0 {
		t.Errorf("a note on %d services and %d more, want 4096", len(last.Services), last.More)
	}
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 300 {
		t.Errorf("it took %d MiB", used)
	} else {
		t.Logf("it took %d MiB", used)
	}
}

// TestGranularityAndTimeout says that a persistence_timeout, before or behind,
// decides: nothing is assumed then.
func TestGranularityAndTimeout(t *testing.T) {
	for _, lines := range []string{"persistence_granularity 255.0.0.0\npersistence_timeout 9", "persistence_timeout 9\npersistence_granularity 255.0.0.0"} {
		text := strings.Replace(farm("weight 1"), "lvs_sched rr", "lvs_sched rr\n"+lines, 1)
		result, err := keepalived.Import("k.conf", []byte(text), keepalived.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if p := result.State.Services[0].Persistence; p.Timeout != 9*time.Second || len(result.Notes) > 0 {
			t.Errorf("persistence %s, notes %v", p, result.Notes)
		}
	}
}
