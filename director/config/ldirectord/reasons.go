package ldirectord

import "github.com/shunt-lb/shunt/director/config/translation"

// Why something is not carried.
const (
	noCheck    = "checks are not carried: give the service a check, or the servers are in service whether or not they answer"
	noChecks   = "a setting of checks, which are not carried: give the service a check"
	noFallback = "fallback servers are not carried: give the service sorry servers, or new clients are not served while no server is there to take them"
	noScript   = "scripts are not carried: give the service health.notify, or follow the events (shunt events --follow)"
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
	return known || ofGlobal || key == "virtual" || key == "virtual6"
}

var everywhere = map[string]reason{
	"checktimeout":     {translation.NotCarried, noChecks},
	"negotiatetimeout": {translation.NotCarried, noChecks},
	"checkinterval":    {translation.NotCarried, noChecks},
	"checkcount":       {translation.NotCarried, noChecks},
	"failurecount":     {translation.NotCarried, noChecks},
	"fallback":         {translation.NotCarried, noFallback},
	"fallback6":        {translation.NotCarried, noFallback},
	"fallbackcommand":  {translation.NotCarried, noScript},
	"quiescent":        {translation.NotCarried, "without a check no server is taken for failed, so none is removed and no weight becomes 0"},
	"emailalert":       {translation.NotCarried, noMail},
	"emailalertfreq":   {translation.NotCarried, noMail},
	"emailalertstatus": {translation.NotCarried, noMail},
	"smtp":             {translation.NotCarried, noMail},
	"cleanstop":        {translation.NotCarried, "Shunt's services stay when its daemon stops: shunt detach removes them"},
}

var reasons = map[scope]map[string]reason{
	global: {
		"readdquiescent": {translation.NotCarried, "without a check no server is taken for failed"},
		"emailalertfrom": {translation.NotCarried, noMail},
		"autoreload":     {translation.NotCarried, "Shunt reads its configuration when it is told to (shunt apply, or SIGHUP)"},
		"callback":       {translation.NotCarried, noScript},
		"logfile":        {translation.NotCarried, ownProcess},
		"execute":        {translation.LeftOut, "another configuration that ldirectord starts itself with: translate that one, too"},
		"fork":           {translation.NotCarried, ownProcess},
		"supervised":     {translation.NotCarried, ownProcess},
		"maintenancedir": {translation.NotCarried, "a server is taken out of service with shunt drain, and not by a file"},
	},
	ofVirtual: {
		"checkcommand": {translation.NotCarried, noScript},
		"checkport":    {translation.NotCarried, noChecks},
		"request":      {translation.NotCarried, noChecks},
		"receive":      {translation.NotCarried, noChecks},
		"httpmethod":   {translation.NotCarried, noChecks},
		"virtualhost":  {translation.NotCarried, noChecks},
		"login":        {translation.NotCarried, noChecks},
		"passwd":       {translation.NotCarried, noChecks},
		"secret":       {translation.NotCarried, noChecks},
		"database":     {translation.NotCarried, noChecks},
		"load":         {translation.NotCarried, noChecks},
		"service":      {translation.NotCarried, noChecks},
		"monitorfile":  {translation.NotCarried, "Shunt logs no checks"},
		"comment":      {translation.NotCarried, "a service has no description: a comment of the configuration can say it"},
	},
}
