package main

import (
	"cmp"
	"errors"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// asking is the action of a command that asks the daemon.
func asking(action func(*cli.Context, *api.Client) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		client, err := newClient(func(name string) string { return global(c, name) })
		if err != nil {
			return err
		}
		defer client.Close()
		return action(c, client)
	}
}

// global returns the value of a flag of the whole: a command's own may have the
// same name.
func global(c *cli.Context, name string) string {
	for _, outer := range c.Lineage() {
		if outer.Command != nil && outer.Command.Name == c.App.Name && outer.IsSet(name) {
			return outer.String(name)
		}
	}
	return ""
}

// newClient returns a client for the daemon that the flags name: the one of this
// host unless --server is given. What is given stands above the environment,
// whose empty variables are none.
func newClient(flag func(name string) string) (*api.Client, error) {
	given := func(name string) bool { return flag(name) != "" && flag(name) != os.Getenv(environment(name)) }
	server := flag("server")
	if given("socket") {
		if given("server") {
			return nil, &usageError{"--socket and --server exclude each other", ""}
		}
		server = ""
	}
	if server == "" {
		for _, name := range []string{"cacert", "cert", "key", "token-file"} {
			if given(name) {
				return nil, &usageError{"--" + name + " is for --server", "the socket asks for no certificate and no token"}
			}
		}
		return api.NewSocketClient(cmp.Or(flag("socket"), api.DefaultSocket)), nil
	}
	return api.NewTLSClient(api.TLSClientOptions{
		Server: server, CA: flag("cacert"), Certificate: flag("cert"), Key: flag("key"), TokenFile: flag("token-file"),
	})
}

// environment is the variable that stands for a flag of the whole.
func environment(flag string) string {
	return "SHUNT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// client returns a client for the daemon that the half-written command line
// means.
func (c *completing) client() (*api.Client, error) {
	return newClient(func(name string) string { return cmp.Or(c.global[name], os.Getenv(environment(name))) })
}

// isNotFound reports whether the daemon does not know what it was asked for.
func isNotFound(err error) bool { return isProblem(err, "not-found") }

// isProblem reports whether err is the daemon's problem of the kind.
func isProblem(err error, kind string) bool {
	problem, ok := errors.AsType[*api.Problem](err)
	return ok && strings.HasSuffix(problem.Type, ":"+kind)
}

// isAway reports whether nobody answered, as while the daemon restarts.
func isAway(err error) bool { return isProblem(err, "not-running") || !isAnswer(err) }

// isAnswer reports whether the daemon itself said so.
func isAnswer(err error) bool {
	_, ok := errors.AsType[*api.Problem](err)
	return ok
}
