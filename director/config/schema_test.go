package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

// compiled returns the schema, which is valid by its own meta schema then.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if schema.DraftVersion != 2020 {
		t.Errorf("the schema is of draft %d", schema.DraftVersion)
	}
	return schema
}

// valid is what an editor says of the text.
func valid(t *testing.T, schema *jsonschema.Schema, text string) error {
	t.Helper()
	var value any
	if err := yaml.Load([]byte(text), &value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(instance)
}

// inDesign is the look of design.md §8 with what this version has.
const inDesign = `director:
  dataplane: xdp                      # xdp | ipvs
  interfaces: [eth0, eth1]
  connections: {max: 1Mi, timeouts: {tcp: 15m, tcp-fin: 2m, udp: 5m}}
services:
  - name: web
    listen: tcp://192.0.2.10:443
    scheduler: wrr
    method: dr                        # nat | dr | tunnel | local: required, here or at each server
    servers:
      - {address: 10.0.0.11, weight: 3}
      - {address: 10.0.0.12:8443, method: nat}
`

// references have every key between them.
var references = []string{"testdata/reference.yaml", "testdata/reference-ipvs.yaml"}

func TestSchemaAccepts(t *testing.T) {
	schema := compiled(t)
	texts := []string{inDesign, "{}", "director: {api: {}}", "services: []", "director: {sync: []}"}
	for _, name := range references {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(data))
	}
	for _, text := range texts {
		if err := valid(t, schema, text); err != nil {
			t.Errorf("%v of\n%s", err, text)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	schema := compiled(t)
	service := func(more string) string {
		return "services: [{listen: 'tcp://192.0.2.1:80', servers: [{address: 10.0.0.1, method: nat}], " + more + "}]"
	}
	for _, text := range []string{
		"- 1", "x: 1", "director: []", "director: {x: 1}", "include: conf.d", "include: ['']", "services: {}",
		"director: {dataplane: dpdk}", "director: {mode: fast}", "director: {interfaces: eth0}", "director: {interfaces: [a/b]}",
		"director: {interfaces: [a, a]}", "director: {midstream: pass}", "director: {icmp-rate: -1}", "director: {connections: {max: 1G}}",
		"director: {connections: {timeouts: {tcp: 300}}}", "director: {connections: {timeouts: {sctp: 3s}}}", "director: {limits: {x: 1}}",
		"director: {removal-limit: 50}", "director: {removal-limit: 101%}", "director: {reconcile: 2}", "director: {state: lib}",
		"director: {history: many}", "director: {socket: /" + strings.Repeat("s", 107) + "}", "director: {socket-group: 'a b'}",
		"director: {log: {level: loud}}", "director: {log: {format: xml}}", "director: {log: {file: /x}}",
		"director: {api: {listen: ':1'}}", "director: {api: {listen: ':1', certificate: /c, key: /k}}", "director: {api: {tokens: /t}}",
		"director: {api: {listen: 'host:1', certificate: /c, key: /k, tokens: /t}}",
		"director: {sync: {}}", "director: {sync: [{}]}", "director: {sync: [{role: spare}]}", "director: {sync: [{role: master, interface: a/b}]}",
		"director: {sync: [{role: master, id: 256}]}", "director: {sync: [{role: master, max-length: 65508}]}", "director: {sync: [{role: master, x: 1}]}",
		"director: {sync: [{role: master, group: host}]}", "director: {sync: [{role: master, port: 0}]}", "director: {sync: [{role: master, ttl: 0}]}",
		"services: [{listen: 'fwmark://0', servers: []}]", "services: [{listen: 'fwmark://7:80', servers: []}]", "services: [{listen: 'fwmark4://7', servers: []}]",
		service("persistence: {timeout: 1m, engine: h323}"), service("flags: [flag-4]"), service("tunnel: {type: vxlan}"), service("method: tunnel, tunnel: {type: gue}"),
		service("method: tunnel, tunnel: {port: 5555}"), service("method: tunnel, tunnel: {type: gre, checksum: remote}"), service("method: tunnel, tunnel: {type: gue, port: 0}"),
		service("method: tunnel, tunnel: {type: gre, port: 1}"), service("method: tunnel, tunnel: {x: 1}"), service("method: tunnel, tunnel: gre"),
		"services: [{}]", "services: [{listen: 'tcp://192.0.2.1:80'}]", "services: [{listen: 'http://192.0.2.1:80', servers: []}]",
		"services: [{listen: 'tcp://192.0.2.1:80', servers: [{address: 10.0.0.1}]}]", "services: [{listen: 'tcp://192.0.2.1:80', method: nat, servers: [{}]}]",
		service("mss: 535"), service("mss: 65536"), service("mss: some"), service("limits: {}, guard: always"), service("guard: {on: 5}"), service("guard: {mode: auto, x: 1}"), service("guard: {mode: On}"), service("guard: [auto]"),
		service("limits: {rate: many}"), service("limits: {x: 1}"), service("limits: {source: 5}"), service("limits: {source: {prefix: 24}}"),
		service("limits: {source: {prefix: 0, rate: 1}}"), service("limits: {source: {prefix: 129, rate: 1}}"), service("limits: [5]"),
		"director: {echo: maybe}", "director: {tunnel: {source: 10.0.0.1}}", "director: {tunnel: {sources: 10.0.0.1}}", "director: {tunnel: {sources: [host]}}",
		"director: {tunnel: {sources: [10.0.0.1, 10.0.0.2, 10.0.0.3]}}", "director: {fullnat: {addresses: [10.0.0.1, 10.0.0.1]}}",
		"director: {fullnat: {addresses: [10.0.0.1%eth0]}}", "director: {fullnat: {ports: 1:5}}", "director: {fullnat: {ports: 0}}", "director: {fullnat: {x: 1}}",
		"director: {connections: {counters: maybe}}", "director: {connections: {sources: -1}}",
		service("name: a b"), service("scheduler: best"), service("flags: [sh-port]"), service("scheduler: sh, flags: [mh-port]"),
		service("scheduler: mh, flags: [sh-port]"), service("vip: mine"), service("method: magic"), service("access: {allow: [example.org]}"),
		service("access: {deny: [10.0.0.0/8, 10.0.0.0/8]}"), service("access: {x: []}"), service("access: [10.0.0.0/8]"),
		"services: [{listen: 'tcp://192.0.2.1:80', method: nat, servers: [{address: host}]}]",
		"services: [{listen: 'tcp://192.0.2.1:80', method: nat, servers: [{address: 10.0.0.1, weight: 2147483648}]}]",
		"services: [{listen: 'tcp://192.0.2.1:80', method: nat, servers: [{address: 10.0.0.1, wait: 1}]}]",
	} {
		if err := valid(t, schema, text); err == nil {
			t.Errorf("the schema accepts %s", text)
		}
		if _, err := config.Parse("f", []byte(text)); err == nil {
			t.Errorf("Parse accepts %s", text)
		}
	}
}

// Schema, decoder, reference and Differences have the same keys.
func TestKeys(t *testing.T) {
	want, has := make(map[string][]string), make(map[string]bool)
	for _, name := range references {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		keys, paths, err := config.Keys(data)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(want, keys)
		maps.Copy(has, paths)
	}
	got := make(map[string][]string)
	walk(schemaOf(t), func(path string, node map[string]any) {
		if properties, ok := node["properties"].(map[string]any); ok {
			got[path] = slices.Sorted(maps.Keys(properties))
		}
		if node["description"] == nil {
			t.Errorf("the schema does not describe %s", path)
		}
	})
	var leaves []string
	for path, keys := range want {
		for _, key := range keys {
			sub := strings.TrimPrefix(path+"."+key, ".")
			if !has[sub] {
				t.Errorf("the reference has no %s", sub)
			}
			if strings.HasPrefix(sub, "director.") && want[sub] == nil && path != "director.connections.timeouts" &&
				!strings.HasPrefix(sub, "director.sync") {
				leaves = append(leaves, sub)
			}
		}
		want[path] = slices.Sorted(slices.Values(keys))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of the decoder and of the schema (-want +got):\n%s", diff)
	}
	slices.Sort(leaves)
	if diff := cmp.Diff(leaves, slices.Sorted(slices.Values(config.SettingKeys()))); diff != "" {
		t.Errorf("keys of the decoder and of Differences (-want +got):\n%s", diff)
	}
}

// Every default of the schema is what a file without the key means, and every
// word and example is one that Parse takes.
func TestSchemaValues(t *testing.T) {
	checked := 0
	walk(schemaOf(t), func(path string, node map[string]any) {
		without, err := config.Parse("f", []byte(holding(path, "")))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if node["default"] != nil && !strings.HasPrefix(path, "services[].health.load.snmp.") { // those have terms that are required
			with, err := config.Parse("f", []byte(holding(path, quoted(t, node["default"]))))
			if diff := cmp.Diff(without, with, cmpNetip); diff != "" || err != nil {
				t.Errorf("default %v of %s: %v (-without +with):\n%s", node["default"], path, err, diff)
			}
			checked++
		}
		values, _ := node["examples"].([]any)
		if words, ok := node["enum"].([]any); ok {
			values = append(values, words...)
		}
		for _, value := range values {
			path := strings.NewReplacer(".servers[].tunnel.", ".tunnel.", ".sorry[].tunnel.", ".tunnel.").Replace(path)
			if path == "include" || path == "services[].flags[]" {
				continue // files that are not there; words of two schedulers
			}
			if sub, ofTunnel := strings.CutPrefix(path, "services[].tunnel."); ofTunnel && (value == "gue" || value == "full" || value == "remote") {
				checkTunnel(t, sub, value)
				continue
			}
			if _, err := config.Parse("f", []byte(holding(path, quoted(t, value)))); err != nil {
				t.Errorf("%v of %s: %v", value, path, err)
			}
			checked++
		}
	})
	if checked < 50 {
		t.Errorf("only %d values were looked at", checked)
	}
}

// checkTunnel takes a word of a tunnel with the others that it needs.
func checkTunnel(t *testing.T, key string, value any) {
	t.Helper()
	tunnel := map[string]any{"type": "gue", "port": 5555}
	tunnel[key] = value
	text := fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', method: tunnel, servers: [{address: 10.0.0.1}], tunnel: %s}]", quoted(t, tunnel))
	if _, err := config.Parse("f", []byte(text)); err != nil {
		t.Errorf("%v of tunnel.%s: %v", value, key, err)
	}
}

// The schema, by which editors complete, and the reference name every scheduler.
func TestSchemaNamesEveryScheduler(t *testing.T) {
	want := strings.Split(allSchedulers(), ", ")
	walk(schemaOf(t), func(path string, node map[string]any) {
		if path != "services[].scheduler" {
			return
		}
		var got []string
		for _, name := range node["enum"].([]any) {
			got = append(got, name.(string))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		want = nil
	})
	if want != nil {
		t.Error("the schema has no services[].scheduler")
	}
	reference, err := os.ReadFile("testdata/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	others := slices.DeleteFunc(director.Schedulers(), func(s director.Scheduler) bool { return s == director.DefaultScheduler })
	if list := strings.Trim(strings.ReplaceAll(fmt.Sprint(others), " ", ", "), "[]"); !strings.Contains(string(reference), "# default; also "+list+"\n") {
		t.Errorf("the reference does not say beside scheduler: # default; also %s", list)
	}
}

func quoted(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// holdingSNMP is holding, of how hosts are asked for their load: with what the key
// needs beside it.
func holdingSNMP(key, value string) string {
	if value == "" {
		return ""
	}
	others := map[string]string{"version": "", "community-file": "version: v2c", "oid": "version: v2c", "scale": "version: v2c, oid: '1.3.6.1'"}
	other, ok := others[key]
	switch {
	case !ok || value == `"v3"`:
		terms := []string{"version: v3", "user: a", "auth: sha", "auth-file: /a", "priv: aes", "priv-file: /b", "measure: load-1"}
		terms = slices.DeleteFunc(terms, func(s string) bool { return strings.HasPrefix(s, key+":") })
		other = strings.Join(terms, ", ")
	case key == "version":
		other = "port: 161"
	}
	return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], health: {load: {kind: linear, snmp: {%s, %s: %s}}}}]", other, key, value)
}

// holding returns a configuration that has the value at the path, or nothing
// there if the value is empty.
func holding(path, value string) string {
	pair := func(key, value string) string {
		if value == "" {
			return ""
		}
		return key + ": " + value
	}
	if key, ofSync := strings.CutPrefix(path, "director.sync[]."); ofSync && key != "role" {
		return fmt.Sprintf("director: {sync: [{role: master, %s}]}", pair(key, value))
	} else if ofSync && value != "" {
		return fmt.Sprintf("director: {sync: [{%s}]}", pair(key, value))
	} else if strings.HasPrefix(path, "director.sync") {
		return ""
	}
	if key, ofCheck := strings.CutPrefix(path, "services[].check[]."); ofCheck {
		return holdingCheck(key, value)
	}
	if strings.HasPrefix(path, "services[].sorry") {
		path = strings.Replace(path, ".sorry[]", ".servers[]", 1) // which have the same keys
	}
	if key, ofSNMP := strings.CutPrefix(path, "services[].health.load.snmp."); ofSNMP {
		return holdingSNMP(key, value)
	}
	if key, ofLoad := strings.CutPrefix(path, "services[].health.load."); ofLoad && key != "kind" {
		return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], health: {load: {kind: linear, %s}}}]", pair(key, value))
	}
	for mapping, all := range map[string][]string{
		"damping": {"changes: 7", "within: 7s", "hold: 7s"}, "passive": {"resets: 7", "unreachable: 7", "within: 7s", "suspend: 7s"}, "notify": nil, "load": nil,
	} {
		if key, ok := strings.CutPrefix(path, "services[].health."+mapping+"."); ok && value != "" {
			others := slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, key+":") })
			return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], health: {%s: {%s}}}]", mapping, strings.Join(append(others, pair(key, value)), ", "))
		}
	}
	if key, ofTunnel := strings.CutPrefix(strings.Replace(path, ".servers[]", "", 1), "services[].tunnel."); ofTunnel {
		if key == "port" && value != "" {
			value += ", type: gue"
		}
		return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', method: tunnel, servers: [{address: 10.0.0.1}], tunnel: {%s}}]", pair(key, value))
	}
	switch key, ofServer := strings.CutPrefix(path, "services[].servers[]."); {
	case ofServer && key == "tunnel" || path == "services[].tunnel":
		return ""
	case path == "" || path == "include" || !strings.Contains(path, "."):
		return ""
	case ofServer && key == "address":
		address := value
		if address == "" {
			address = "10.0.0.1"
		}
		vip := "192.0.2.1"
		if strings.Count(address, ":") > 1 {
			vip = "[2001:db8::1]"
		}
		return fmt.Sprintf("services: [{listen: 'tcp://%s:80', method: nat, servers: [{address: %s}]}]", vip, address)
	case ofServer && key == "method":
		return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', method: dr, servers: [{address: 10.0.0.1, %s}]}]", pair(key, value))
	case ofServer && key == "lower":
		return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', method: nat, servers: [{address: 10.0.0.1, upper: 9, %s}]}]", pair(key, value))
	case ofServer:
		return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', method: nat, servers: [{address: 10.0.0.1, %s}]}]", pair(key, value))
	}
	if key, ofAccess := strings.CutPrefix(path, "services[].access."); ofAccess {
		vip := "192.0.2.1"
		if strings.Contains(value, "::") {
			vip = "[2001:db8::1]"
		}
		return fmt.Sprintf("services: [{listen: 'tcp://%s:80', servers: [], access: {%s}}]", vip, pair(key, value))
	}
	if key, ofService := strings.CutPrefix(path, "services[]."); ofService {
		mapping, sub, nested := strings.Cut(key, ".")
		switch {
		case nested && mapping == "persistence" && sub != "timeout":
			return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], persistence: {timeout: 1m, %s}}]", pair(sub, value))
		case sub == "source.prefix" && value != "":
			return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], limits: {source: {rate: 1, prefix: %s}}}]", value)
		case strings.HasPrefix(sub, "source.") && value != "":
			return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], limits: {source: {%s}}}]", pair(strings.TrimPrefix(sub, "source."), value))
		case mapping == "guard" && sub != "mode" && nested:
			return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], guard: {mode: auto, %s}}]", pair(sub, value))
		case nested && value != "":
			return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], %s: {%s}}]", mapping, pair(sub, value))
		case nested:
			return "services: [{listen: 'tcp://192.0.2.1:80', servers: []}]"
		case key == "one-packet":
			return fmt.Sprintf("services: [{listen: 'udp://192.0.2.1:53', servers: [], %s}]", pair(key, value))
		case key == "listen" && value != "":
			return fmt.Sprintf("services: [{listen: %s, servers: []}]", value)
		case key == "method" && value == `"tunnel"`:
			return "services: [{listen: 'tcp://192.0.2.1:80', servers: [], method: tunnel}]"
		case key == "servers" || key == "listen":
			return "services: [{listen: 'tcp://192.0.2.1:80', servers: []}]"
		}
		return fmt.Sprintf("services: [{listen: 'tcp://192.0.2.1:80', servers: [], %s}]", pair(key, value))
	}
	if key, ofAPI := strings.CutPrefix(path, "director.api."); ofAPI && value != "" {
		api := map[string]string{"listen": `":9443"`, "certificate": "/c", "key": "/k", "tokens": "/t"}
		api[key] = value
		text := ""
		for _, key := range slices.Sorted(maps.Keys(api)) {
			text += key + ": " + api[key] + ", "
		}
		return "director: {api: {" + text + "}}"
	}
	if value == "" {
		return ""
	}
	keys := strings.Split(path, ".")
	return strings.Join(keys, ": {") + ": " + value + strings.Repeat("}", len(keys)-1)
}

// holdingCheck returns a configuration with a check that has the value at the key,
// beside what it needs.
func holdingCheck(key, value string) string {
	needed := map[string]string{"dns": "name: a", "script": "command: [/a]", "file": "path: /a"}
	kind, sub, nested := strings.Cut(key, ".")
	check := ""
	switch {
	case kind == "tls" && nested:
		check = "https: {}, tls: {" + given(sub, value) + "}"
	case nested:
		terms := []string{needed[kind], given(sub, value)}
		if value != "" && strings.HasPrefix(needed[kind], sub+":") {
			terms = terms[1:]
		}
		check = kind + ": {" + strings.Join(slices.DeleteFunc(terms, func(s string) bool { return s == "" }), ", ") + "}"
	case value == "" || kind == "tls":
		check = "https: {}"
	default:
		check = "https: {}, " + given(key, value)
	}
	return "services: [{listen: 'tcp://192.0.2.1:80', servers: [], check: {" + check + "}}]"
}

func given(key, value string) string {
	if value == "" {
		return ""
	}
	return key + ": " + value
}

func schemaOf(t *testing.T) map[string]any {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(config.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

// walk calls visit for every key's schema, references followed: what stands
// beside one goes before it.
func walk(root map[string]any, visit func(path string, node map[string]any)) {
	defs := root["$defs"].(map[string]any)
	var descend func(node map[string]any, path string)
	descend = func(node map[string]any, path string) {
		if ref, ok := node["$ref"].(string); ok {
			merged := maps.Clone(defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any))
			maps.Copy(merged, node)
			delete(merged, "$ref")
			node = merged
		}
		visit(path, node)
		if properties, ok := node["properties"].(map[string]any); ok {
			for key, property := range properties {
				descend(property.(map[string]any), strings.TrimPrefix(path+"."+key, "."))
			}
		}
		// A check stands alone or in a list, which has the same keys.
		options, _ := node["oneOf"].([]any)
		for _, option := range options {
			if items, ok := option.(map[string]any)["items"].(map[string]any); ok {
				descend(items, path+"[]")
			}
		}
		if items, ok := node["items"].(map[string]any); ok && items["properties"] == nil {
			if items["$ref"] != nil {
				descend(items, path+"[]")
			} else if items["enum"] != nil {
				visit(path+"[]", map[string]any{"description": "an element", "enum": items["enum"]})
			}
		}
	}
	descend(root, "")
}
