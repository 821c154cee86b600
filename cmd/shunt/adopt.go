package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// adopt makes the services Shunt's in one revision, all foreign ones that the kernel
// has if none is named, and says of each what became of it. Those that cannot be
// taken are the error: they are in the way of no other.
func adopt(c *cli.Context, client *api.Client, urls []string) error {
	report, err := client.Adopt(c.Context, urls, terms(c))
	if err != nil {
		return err
	}
	for _, url := range report.Adopted {
		if err := write(c.App.Writer, []byte("adopted "+url+"\n")); err != nil {
			return err
		}
	}
	adopted, refused := len(report.Adopted), len(report.Refused)
	switch {
	case refused == 1 && adopted == 0:
		return &report.Refused[0].Problem
	case refused == 0 && adopted == 0:
		return write(c.App.Writer, []byte("nothing to adopt: the kernel has no foreign services\n"))
	case refused == 0:
		return nil
	}
	for _, r := range report.Refused {
		text := r.Problem.Detail + "\n"
		if r.Problem.Hint != "" {
			text += "  (" + r.Problem.Hint + ")\n"
		}
		if err := write(c.App.ErrWriter, []byte(text)); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d of %s could not be adopted", refused, count(adopted+refused, "service"))
}
