package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/metrics"
)

// board is a dashboard of Grafana, as far as its queries and its layout go
// (schema version 39, of Grafana 10).
type board struct {
	Title         string
	UID           string
	SchemaVersion int
	Annotations   struct{ List []annotation }
	Templating    struct{ List []variable }
	Panels        []panel
}

type annotation struct{ Name, Expr, TitleFormat string }

type variable struct {
	Name, Type string
	Query      any
	Definition string
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               *datasource
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct {
		RefID, Expr, LegendFormat string
		Datasource                *datasource
	}
}

func readBoard(t *testing.T) (board, string) {
	t.Helper()
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var b board
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	return b, string(text)
}

var (
	legendLabel  = regexp.MustCompile(`\{\{(\w+)\}\}`)
	labelValues  = regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	usedVariable = regexp.MustCompile(`\$\{?(\w+)`)
)

// judge reports what is wrong with an expression and the labels its legend has.
func judge(t *testing.T, v vocabulary, where, expr, legend string) []metrics.Info {
	t.Helper()
	q := v.parse(expr)
	for _, problem := range q.problems {
		t.Errorf("%s: %s: %s", where, expr, problem)
	}
	if len(q.metrics) == 0 {
		t.Errorf("%s: %q names no metric", where, expr)
	}
	for _, match := range legendLabel.FindAllStringSubmatch(legend, -1) {
		if !anyHas(q.metrics, match[1]) {
			t.Errorf("%s: %s has no label %q of the legend", where, expr, match[1])
		}
	}
	return q.metrics
}

func TestBoardQueries(t *testing.T) {
	b, _ := readBoard(t)
	v, used := words(t), map[string]bool{}
	note := func(all []metrics.Info) {
		for _, info := range all {
			used[info.Name] = true
		}
	}
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			note(judge(t, v, p.Title, target.Expr, target.LegendFormat))
			if target.Datasource == nil || *target.Datasource != (datasource{"prometheus", "${datasource}"}) {
				t.Errorf("%s: the query does not ask the chosen data source", p.Title)
			}
		}
	}
	for _, a := range b.Annotations.List {
		if a.Expr != "" {
			note(judge(t, v, a.Name, a.Expr, a.TitleFormat))
		}
	}
	for _, variable := range b.Templating.List {
		if variable.Type != "query" {
			continue
		}
		match := labelValues.FindStringSubmatch(variable.Definition)
		if match == nil {
			t.Errorf("variable %s: %q is not label_values(metric, label)", variable.Name, variable.Definition)
			continue
		}
		note(judge(t, v, variable.Name, match[1], "{{"+match[2]+"}}"))
		if q, ok := variable.Query.(map[string]any); !ok || q["query"] != variable.Definition {
			t.Errorf("variable %s: query and definition differ", variable.Name)
		}
	}
	for _, info := range metrics.Names() {
		// These are left to whoever drills down: the numbers beside those shown.
		shown := used[info.Name] || info.Type == metrics.Histogram && used[info.Name+"_bucket"]
		if !shown && !slices.Contains([]string{
			"shunt_table_slots", "shunt_dataplane_table_size", "shunt_server_packets_total", "shunt_server_inactive_connections",
			"shunt_snmp_polls_total",
		}, info.Name) {
			t.Errorf("no panel shows %s", info.Name)
		}
	}
}

func TestBoardVariables(t *testing.T) {
	b, text := readBoard(t)
	known := []string{"__rate_interval", "__all"}
	for _, variable := range b.Templating.List {
		known = append(known, variable.Name)
	}
	for _, match := range usedVariable.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(known, match[1]) {
			t.Errorf("$%s is not defined", match[1])
		}
	}
	for _, name := range []string{"datasource", "instance", "service", "server"} {
		if !slices.Contains(known, name) || strings.Count(text, "$"+name)+strings.Count(text, "${"+name+"}") == 0 {
			t.Errorf("there is no variable %s, or nothing uses it", name)
		}
	}
}

func TestBoardLayout(t *testing.T) {
	b, _ := readBoard(t)
	if b.Title == "" || b.UID == "" || b.SchemaVersion < 38 {
		t.Errorf("title %q, uid %q, schema version %d: want Grafana 10's, 38 or more", b.Title, b.UID, b.SchemaVersion)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("%s: id %d is another panel's", p.Title, p.ID)
		}
		ids[p.ID] = true
		if g := p.GridPos; p.Title == "" || g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%q at %+v", p.Title, g)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, taken := cells[at]; taken {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				cells[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.Datasource == nil {
			t.Errorf("%s lacks a description, a unit, a query or a data source", p.Title)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" {
				t.Errorf("%s: query %q is there twice", p.Title, target.RefID)
			}
			refs[target.RefID] = true
		}
	}
}
