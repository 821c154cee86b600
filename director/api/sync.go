package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

// StartSync answers startSync.
func (e endpoints) StartSync(w http.ResponseWriter, r *http.Request, p StartSyncParams) {
	e.change(w, r, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		var body SyncDaemon
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, "", err
		}
		daemon, err := body.daemon()
		if err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := e.director.StartSync(ctx, by, daemon)
		return outcome, "", hinted(about(err, ProblemCodeSyncRunning, ""), e.runningHint(daemon.Role))
	})
}

// runningHint says what to do about a sync daemon that runs already.
func (e endpoints) runningHint(role director.SyncRole) string {
	if slices.ContainsFunc(e.director.State().Sync, func(d director.SyncDaemon) bool { return d.Role == role }) {
		return "stop it first: `shunt sync stop " + string(role) + "`"
	}
	return "it is not Shunt's: `shunt apply` takes it over from a file that has it in director.sync (`shunt export` writes the rest); or let it be stopped by who started it"
}

// StopSync answers stopSync.
func (e endpoints) StopSync(w http.ResponseWriter, r *http.Request, role string, p StopSyncParams) {
	e.change(w, r, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		parsed, err := parseSyncRole(role)
		if err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := e.director.StopSync(ctx, by, parsed)
		return outcome, "", hinted(about(err, "", ProblemCodeNoSync), "`shunt sync list` shows which run, and whose they are")
	})
}

// hinted gives what exists already or is not found the hint that fits.
func hinted(err error, hint string) error {
	if p := problemOf(err); err != nil && (p.Status == http.StatusConflict || p.Status == http.StatusNotFound) {
		p.Hint = hint
		return p
	}
	return err
}

func parseSyncRole(role string) (director.SyncRole, error) {
	switch parsed := director.SyncRole(role); parsed {
	case director.SyncMaster, director.SyncBackup:
		return parsed, nil
	default:
		return "", invalid(fmt.Sprintf("unknown role %.80q of a sync daemon", role), "want master or backup")
	}
}

// daemon turns the model into the director's value. What is left out gets its
// default.
func (s SyncDaemon) daemon() (director.SyncDaemon, error) {
	role, err := parseSyncRole(s.Role)
	if err != nil {
		return director.SyncDaemon{}, err
	}
	d := director.SyncDaemon{Role: role, Interface: s.Interface, ID: s.ID, MaxLength: s.MaxLength, Port: s.Port, TTL: s.TTL}
	if s.Group != "" {
		if d.Group, err = netip.ParseAddr(s.Group); err != nil {
			return d, invalid(fmt.Sprintf("group %.80q is not an IP address", s.Group), "write it as 224.0.0.81 or ff02::81")
		}
	}
	return d.Normalize(), nil
}

// syncModel is the reverse of SyncDaemon.daemon.
func syncModel(d director.SyncDaemon) SyncDaemon {
	model := SyncDaemon{
		Role: string(d.Role), Interface: d.Interface, ID: d.ID, MaxLength: d.MaxLength, Port: d.Port, TTL: d.TTL,
	}
	if d.Group.IsValid() {
		model.Group = d.Group.String()
	}
	return model
}

func syncModels(daemons []director.SyncDaemon) []SyncDaemon {
	var models []SyncDaemon
	if daemons != nil {
		models = []SyncDaemon{}
	}
	for _, d := range daemons {
		models = append(models, syncModel(d))
	}
	return models
}

// foundSyncs marks those of the daemons whose role is not among the desired ones.
func foundSyncs(found, desired []director.SyncDaemon) []FoundSync {
	models := []FoundSync{}
	for _, d := range found {
		m := syncModel(d)
		models = append(models, FoundSync{
			Role: m.Role, Interface: m.Interface, ID: m.ID, Group: m.Group, Port: m.Port, TTL: m.TTL, MaxLength: m.MaxLength,
			Foreign: !slices.ContainsFunc(desired, func(o director.SyncDaemon) bool { return o.Role == d.Role }),
		})
	}
	return models
}
