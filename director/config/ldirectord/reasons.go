package ldirectord

import "github.com/shunt-lb/shunt/director/config/translation"

// Why something is not carried.
const (
	noScript   = "Shunt tells of changes by itself: follow the events (shunt events --follow)"
	noLogin    = "Shunt's checks log in nowhere"
	noMail     = "Shunt sends no mail"
	ownProcess = "it is about ldirectord's own process"
	refused    = "ldirectord does not start with it"
)

// scope is where a directive stands.
type scope int

const (
	global scope = iota
	ofVirtual
)

type reason struct {
	kind translation.Kind
	why  string
}

// reasonOf says why a directive is not carried.
func reasonOf(d directive, where scope) (translation.Kind, string) {
	if r, known := everywhere[d.key]; known {
		return r.kind, r.why
	}
	if r, known := reasons[where][d.key]; known {
		return r.kind, r.why
	}
	return translation.NotCarried, "unknown directive: " + refused
}

// Knows reports whether a key is one of the top level.
func Knows(key string) bool {
	_, ofGlobal := reasons[global][key]
	_, known := everywhere[key]
	var s settings
	known = known || key == "maintenancedir" || s.setting(directive{key: key}, func(translation.Kind, directive, string) {})
	return known || ofGlobal || key == "virtual" || key == "virtual6"
}

var everywhere = map[string]reason{
	"emailalert":       {translation.NotCarried, noMail},
	"emailalertfreq":   {translation.NotCarried, noMail},
	"emailalertstatus": {translation.NotCarried, noMail},
	"smtp":             {translation.NotCarried, noMail},
	"cleanstop":        {translation.NotCarried, "Shunt's services stay when its daemon stops: shunt detach removes them"},
}

var reasons = map[scope]map[string]reason{
	global: {
		"readdquiescent": {translation.NotCarried, "a server that failed is as quiescent says, also after the start"},
		"emailalertfrom": {translation.NotCarried, noMail},
		"autoreload":     {translation.NotCarried, "Shunt reads its configuration when it is told to (shunt apply, or SIGHUP)"},
		"callback":       {translation.NotCarried, noScript},
		"logfile":        {translation.NotCarried, ownProcess},
		"execute":        {translation.LeftOut, "another configuration that ldirectord starts itself with: translate that one, too"},
		"fork":           {translation.NotCarried, ownProcess},
		"supervised":     {translation.NotCarried, ownProcess},
	},
	ofVirtual: {
		"login":       {translation.NotCarried, noLogin},
		"passwd":      {translation.NotCarried, noLogin},
		"secret":      {translation.NotCarried, noLogin},
		"database":    {translation.NotCarried, noLogin},
		"load":        {translation.NotCarried, "ldirectord makes nothing of it"},
		"monitorfile": {translation.NotCarried, "Shunt logs no checks"},
		"comment":     {translation.NotCarried, "a service has no description: a comment of the configuration can say it"},
	},
}
