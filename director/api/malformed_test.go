package api_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// What no agent would say changes nothing, is answered by a problem that says what is
// wrong, and costs no memory that stays.
func TestMalformedRegistrations(t *testing.T) {
	p := servePools(t)
	const agent = "/v1/pools/web/members/agent"
	if status, text := p.send("agent", "PUT", agent, registers(1, `,"load":{"value":0.4}`)); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	with := func(old, new string) string { return strings.Replace(registers(2, ""), old, new, 1) }
	bodies := []string{
		"", "null", "[]", "7", "\x00", "\xff\xfe", "{", "{}", `{"boot"`, strings.Repeat("[", 16000), strings.Repeat(`{"server":`, 1600),
		registers(2, "") + registers(3, ""), with(`"b1"`, `"`+strings.Repeat("b", 16000)+`"`), with(`"b1"`, `"b 1"`), with(`"b1"`, `"\u0000"`), with(`"b1"`, "\"\xff\""),
		with(`"b1"`, "1"), with(`:2`, `:0`), with(`:2`, `:-1`), with(`:2`, `:1.5`), with(`:2`, `:1e400`), with(`:2`, `:18446744073709551616`), with(`:2`, `:"2"`),
		with("30s", "1ns"), with("30s", "-30s"), with("30s", "9e99h"), with("30s", "999999999999h"), with("30s", "soon"), with(`"30s"`, "30"),
		with("10.0.0.21", ""), with("10.0.0.21", "10.0.0.21:99999"), with("10.0.0.21", "0.0.0.0"), with("10.0.0.21", "224.0.0.1"), with("10.0.0.21", "db.example"), with("10.0.0.21", "fe80::1%eth0"),
		with(`"dr"`, `"ftp"`), with(`"dr"`, `["dr"]`), with(`:7`, `:-7`), with(`:7`, `:99999999999`), with(`:7`, `:0.5`),
		registers(2, `,"load":{"value":-1}`), registers(2, `,"load":{"value":1e999}`), registers(2, `,"load":{"value":NaN}`), registers(2, `,"load":{"value":0.5,"cpu":2}`),
		registers(2, `,"load":{"value":0.5,"connections":-1}`), registers(2, `,"load":[]`), registers(2, `,"load":{"value":0.5,"degradation":1e300}`), registers(2, `,"draining":"no"`),
	}
	good := registers(2, "")
	for n := range len(good) {
		bodies = append(bodies, good[:n])
	}
	before, loads := p.leases.Members("web"), len(p.loads)
	var start, end runtime.MemStats
	p.malformed(agent, bodies) // connections and buffers of the first round stay
	runtime.GC()
	runtime.ReadMemStats(&start)
	const rounds = 5
	for range rounds {
		p.malformed(agent, bodies)
	}
	runtime.GC()
	runtime.ReadMemStats(&end)
	messages := uint64(rounds * len(bodies))
	t.Logf("%d messages: %d bytes allocated for each, %d bytes stay of all", messages, (end.TotalAlloc-start.TotalAlloc)/messages, int64(end.HeapAlloc)-int64(start.HeapAlloc))
	if stay := int64(end.HeapAlloc) - int64(start.HeapAlloc); stay > 1<<20 {
		t.Errorf("%d bytes stay of %d messages", stay, messages)
	}
	if each := (end.TotalAlloc - start.TotalAlloc) / messages; each > 256<<10 {
		t.Errorf("%d bytes were allocated for each message", each)
	}
	if diff := cmp.Diff(before, p.leases.Members("web"), cmp.Comparer(func(a, b fmt.Stringer) bool { return a.String() == b.String() })); diff != "" || len(p.loads) != loads {
		t.Errorf("the pool has changed, or its loads %v (-before +after):\n%s", p.loads, diff)
	}
	if status, text := p.send("agent", "PUT", agent, good); status != 200 {
		t.Errorf("a good one after them: %d %s", status, text)
	}
}

// malformed wants each message to be refused by a problem.
func (p *pools) malformed(agent string, bodies []string) {
	p.t.Helper()
	for _, body := range bodies {
		status, text := p.send("agent", "PUT", agent, body)
		var problem api.Problem
		if err := json.Unmarshal([]byte(text), &problem); err != nil || status != 400 && status != 413 && status != 422 || problem.Detail == "" || !problem.Code.Valid() || len(text) > 2048 {
			p.t.Errorf("%.100q: %d %.3000s", body, status, text)
		}
	}
}
