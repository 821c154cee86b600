package api

import (
	"context"

	"github.com/shunt-lb/shunt/director"
)

// seesSecrets reports whether the caller is shown what may be a secret: who can change it,
// and nobody else.
func seesSecrets(ctx context.Context) bool { return callerOf(ctx).role >= Operator }

// shown returns the state as the caller may see it.
func shown(ctx context.Context, s director.State) director.State {
	if seesSecrets(ctx) {
		return s
	}
	return s.Redact()
}

// redactHealth takes out of a report what its checks may have of secrets.
func redactHealth(services []ServiceHealth) error {
	for _, service := range services {
		for _, server := range service.Servers {
			for i := range server.Checks {
				check, err := server.Checks[i].Check.check()
				if err != nil {
					return err
				}
				server.Checks[i].Check = checkModel(check.Redact())
			}
		}
	}
	return nil
}
