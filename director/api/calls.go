package api

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Terms are what every change says besides what it changes.
type Terms struct {
	Why      string // for the history; may be empty
	Revision uint64 // the revision it is made against; 0: whatever is newest
	Force    bool   // remove more than the guard allows; Apply, Rollback and Reload
}

func (t Terms) match() *string {
	if t.Revision == 0 {
		return nil
	}
	return new(etag(t.Revision))
}

func (t Terms) why() *string { return given(t.Why) }

func (t Terms) force() *bool { return given(t.Force) }

// given returns nil for the zero value: a parameter that is left out.
func given[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// maxPage is the largest page of a list.
const maxPage = 1000

// etag writes a revision as ETag and If-Match have it.
func etag(revision uint64) string { return `"` + strconv.FormatUint(revision, 10) + `"` }

// Status says how the daemon and its data plane are.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return as[Status](c)(c.raw.GetStatus(ctx))
}

// Stats reads all counters.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	return as[Stats](c)(c.raw.GetStats(ctx))
}

// Found reads all that the kernel holds, foreign services and sync daemons too.
func (c *Client) Found(ctx context.Context) (Found, error) {
	return as[Found](c)(c.raw.GetFound(ctx))
}

// Zero sets the counters of the service with the URL or name to zero; empty: of
// all services.
func (c *Client) Zero(ctx context.Context, ref string) error {
	return c.done(c.raw.ZeroCounters(ctx, ZeroOrder{Service: ref}))
}

// StartSync starts a sync daemon.
func (c *Client) StartSync(ctx context.Context, daemon SyncDaemon, t Terms) (Outcome, error) {
	return as[Outcome](c)(c.raw.StartSync(ctx, &StartSyncParams{IfMatch: t.match(), ShuntWhy: t.why()}, daemon))
}

// StopSync stops the sync daemon of the role, master or backup.
func (c *Client) StopSync(ctx context.Context, role string, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{role}.ask(func() (*http.Response, error) {
		return c.raw.StopSync(ctx, role, &StopSyncParams{IfMatch: t.match(), ShuntWhy: t.why()})
	}))
}

// Drift says where the kernel differs from what is desired.
func (c *Client) Drift(ctx context.Context) (Drift, error) {
	return as[Drift](c)(c.raw.GetDrift(ctx))
}

// Services lists all services, foreign ones too, a page at a time.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	all := []Service{}
	for after := ""; ; {
		page, err := as[ServiceList](c)(c.raw.ListServices(ctx, &ListServicesParams{Limit: new(maxPage), After: given(after)}))
		if err != nil {
			return nil, err
		}
		all = append(all, page.Services...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// Service reads the service with the URL or name.
func (c *Client) Service(ctx context.Context, ref string) (Service, error) {
	return as[Service](c)(segments{ref}.ask(func() (*http.Response, error) { return c.raw.GetService(ctx, ref) }))
}

// AddService adds a service with its servers.
func (c *Client) AddService(ctx context.Context, s ServiceConfig, t Terms) (Outcome, error) {
	return as[Outcome](c)(c.raw.AddService(ctx, &AddServiceParams{IfMatch: t.match(), ShuntWhy: t.why()}, s))
}

// EditService changes what the edit names.
func (c *Client) EditService(ctx context.Context, ref string, edit ServiceEdit, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref}.ask(func() (*http.Response, error) {
		return c.raw.EditService(ctx, ref, &EditServiceParams{IfMatch: t.match(), ShuntWhy: t.why()}, edit)
	}))
}

// RemoveService removes a service with its servers.
func (c *Client) RemoveService(ctx context.Context, ref string, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref}.ask(func() (*http.Response, error) {
		return c.raw.RemoveService(ctx, ref, &RemoveServiceParams{IfMatch: t.match(), ShuntWhy: t.why()})
	}))
}

// Adopt makes the foreign services with the URLs Shunt's, all if none is given. The
// report says which could not be.
func (c *Client) Adopt(ctx context.Context, urls []string, t Terms) (AdoptionReport, error) {
	return as[AdoptionReport](c)(c.raw.AdoptServices(ctx, &AdoptServicesParams{IfMatch: t.match(), ShuntWhy: t.why()}, AdoptionOrder{Services: urls}))
}

// AddServer adds a server to the service.
func (c *Client) AddServer(ctx context.Context, ref string, s ServerConfig, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref}.ask(func() (*http.Response, error) {
		return c.raw.AddServer(ctx, ref, &AddServerParams{IfMatch: t.match(), ShuntWhy: t.why()}, s)
	}))
}

// EditServer changes what the edit names.
func (c *Client) EditServer(ctx context.Context, ref, address string, edit ServerEdit, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref, address}.ask(func() (*http.Response, error) {
		return c.raw.EditServer(ctx, ref, address, &EditServerParams{IfMatch: t.match(), ShuntWhy: t.why()}, edit)
	}))
}

// RemoveServer removes a server from the service.
func (c *Client) RemoveServer(ctx context.Context, ref, address string, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref, address}.ask(func() (*http.Response, error) {
		return c.raw.RemoveServer(ctx, ref, address, &RemoveServerParams{IfMatch: t.match(), ShuntWhy: t.why()})
	}))
}

// DrainServer takes the server out while its connections go on.
func (c *Client) DrainServer(ctx context.Context, ref, address string, order DrainOrder, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref, address}.ask(func() (*http.Response, error) {
		return c.raw.DrainServer(ctx, ref, address, &DrainServerParams{IfMatch: t.match(), ShuntWhy: t.why()}, order)
	}))
}

// CancelDrain gives the server back to the service.
func (c *Client) CancelDrain(ctx context.Context, ref, address string, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref, address}.ask(func() (*http.Response, error) {
		return c.raw.CancelDrain(ctx, ref, address, &CancelDrainParams{IfMatch: t.match(), ShuntWhy: t.why()})
	}))
}

// OverrideServer has the server up or down whatever its checks say.
func (c *Client) OverrideServer(ctx context.Context, ref, address string, order OverrideOrder, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref, address}.ask(func() (*http.Response, error) {
		return c.raw.OverrideServer(ctx, ref, address, &OverrideServerParams{IfMatch: t.match(), ShuntWhy: t.why()}, order)
	}))
}

// ClearOverride leaves the server to its checks.
func (c *Client) ClearOverride(ctx context.Context, ref, address string, t Terms) (Outcome, error) {
	return as[Outcome](c)(segments{ref, address}.ask(func() (*http.Response, error) {
		return c.raw.ClearOverride(ctx, ref, address, &ClearOverrideParams{IfMatch: t.match(), ShuntWhy: t.why()})
	}))
}

// Health says what is offered of the service's servers, of all services if ref is "",
// with up to so many of the last changes.
func (c *Client) Health(ctx context.Context, ref string, changes int) (HealthReport, error) {
	params := &ListHealthParams{Changes: given(changes), Service: given(ref)}
	return as[HealthReport](c)(c.raw.ListHealth(ctx, params))
}

// Drains lists the servers that are being drained, and what they have left.
func (c *Client) Drains(ctx context.Context) ([]DrainStatus, error) {
	list, err := as[DrainList](c)(c.raw.ListDrains(ctx))
	return list.Drains, err
}

// Pools lists the pools with what agents have registered, and what was counted.
func (c *Client) Pools(ctx context.Context) (PoolList, error) {
	return as[PoolList](c)(c.raw.ListPools(ctx))
}

// Pool says what a pool's handle stands for.
func (c *Client) Pool(ctx context.Context, pool string) (Pool, error) {
	return as[Pool](c)(segments{pool}.ask(func() (*http.Response, error) { return c.raw.GetPool(ctx, pool) }))
}

// RemoveMember takes an agent's server away, as an operator may.
func (c *Client) RemoveMember(ctx context.Context, pool, agent string) error {
	return c.done(segments{pool, agent}.ask(func() (*http.Response, error) {
		return c.raw.DeregisterMember(ctx, pool, agent, &DeregisterMemberParams{})
	}))
}

// Timeouts reads the connection timeouts.
func (c *Client) Timeouts(ctx context.Context) (Timeouts, error) {
	return as[Timeouts](c)(c.raw.GetTimeouts(ctx))
}

// EditTimeouts changes what the edit names.
func (c *Client) EditTimeouts(ctx context.Context, edit TimeoutsEdit, t Terms) (Outcome, error) {
	return as[Outcome](c)(c.raw.EditTimeouts(ctx, &EditTimeoutsParams{IfMatch: t.match(), ShuntWhy: t.why()}, edit))
}

// Configuration reads everything that is desired, and the revision it is of.
func (c *Client) Configuration(ctx context.Context) (Configuration, uint64, error) {
	answer, err := c.raw.GetConfiguration(ctx)
	configuration, err := as[Configuration](c)(answer, err)
	if err != nil {
		return configuration, 0, err
	}
	revision, err := strconv.ParseUint(strings.Trim(answer.Header.Get("ETag"), `"`), 10, 64)
	if err != nil {
		return configuration, 0, fmt.Errorf("read the daemon's answer: ETag: %w", err)
	}
	return configuration, revision, nil
}

// Apply makes the configuration what is desired.
func (c *Client) Apply(ctx context.Context, configuration Configuration, t Terms) (Outcome, error) {
	p := &ApplyConfigurationParams{IfMatch: t.match(), ShuntWhy: t.why(), Force: t.force()}
	return as[Outcome](c)(c.raw.ApplyConfiguration(ctx, p, configuration))
}

// Plan says what Apply would do.
func (c *Client) Plan(ctx context.Context, configuration Configuration) (Plan, error) {
	return as[Plan](c)(c.raw.MakePlan(ctx, configuration))
}

// Revisions yields the history, newest first, reading a page at a time.
func (c *Client) Revisions(ctx context.Context) iter.Seq2[RevisionInfo, error] {
	return func(yield func(RevisionInfo, error) bool) {
		for before := uint64(0); ; {
			page, err := as[RevisionList](c)(c.raw.ListRevisions(ctx, &ListRevisionsParams{Before: given(before)}))
			if err != nil {
				yield(RevisionInfo{}, err)
				return
			}
			for _, revision := range page.Revisions {
				if !yield(revision, nil) {
					return
				}
			}
			if before = page.Next; before == 0 {
				return
			}
		}
	}
}

// Revision reads a revision with its configuration.
func (c *Client) Revision(ctx context.Context, number uint64) (Revision, error) {
	return as[Revision](c)(c.raw.GetRevision(ctx, number))
}

// Diff returns the steps from one revision to another; to 0 stands for what a
// rollback to the revision would do now.
func (c *Client) Diff(ctx context.Context, number, to uint64) (Plan, error) {
	return as[Plan](c)(c.raw.DiffRevisions(ctx, number, &DiffRevisionsParams{To: given(to)}))
}

// Rollback makes an earlier revision what is desired.
func (c *Client) Rollback(ctx context.Context, number uint64, t Terms) (Outcome, error) {
	p := &RollbackParams{IfMatch: t.match(), ShuntWhy: t.why(), Force: t.force()}
	return as[Outcome](c)(c.raw.Rollback(ctx, number, p))
}

// Migrate moves services from the kernel's IPVS to XDP. A failure after the first
// was moved is in the report.
func (c *Client) Migrate(ctx context.Context, order MigrationOrder, why string) (MigrationReport, error) {
	return as[MigrationReport](c)(c.raw.Migrate(ctx, &MigrateParams{ShuntWhy: given(why)}, order))
}

// Doctor inspects the daemon's host.
func (c *Client) Doctor(ctx context.Context) ([]Finding, error) {
	report, err := as[DoctorReport](c)(c.raw.GetDoctor(ctx))
	return report.Findings, err
}

// Reload makes the daemon read its configuration file again and apply it.
func (c *Client) Reload(ctx context.Context, t Terms) (Outcome, error) {
	p := &ReloadParams{IfMatch: t.match(), ShuntWhy: t.why(), Force: t.force()}
	return as[Outcome](c)(c.raw.Reload(ctx, p))
}

// Detach takes the data plane off the host and ends the daemon.
func (c *Client) Detach(ctx context.Context) error {
	return c.done(c.raw.Detach(ctx))
}

// done reads an answer that says nothing.
func (c *Client) done(answer *http.Response, err error) error {
	if err := c.check(answer, err); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	return err
}

// segments are texts that a path has as one segment each.
type segments []string

// ask calls the function unless a path could not carry the segments: "." and
// ".." would be resolved away, and nothing has such a name.
func (s segments) ask(call func() (*http.Response, error)) (*http.Response, error) {
	for _, text := range s {
		if slices.Contains([]string{"", ".", ".."}, text) {
			return nil, newProblem(http.StatusNotFound, "not-found", fmt.Sprintf("%q: not found", text), notFoundHint)
		}
	}
	return call()
}
