package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// defaultTop is how often `shunt top` reads the daemon.
const defaultTop = time.Second

func topCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "services and servers live, with rates, down to their connections",
		Description: examples("Arrows select, Enter goes into what is selected and Esc back. A letter sorts by its column, /\n"+
			"filters, h lists all keys and what the columns mean, and q quits.",
			"shunt top", "shunt top --interval 5s"),
		Flags: []cli.Flag{
			&cli.DurationFlag{
				Name: "interval", Aliases: []string{"i"}, Value: defaultTop, Usage: "read the daemon every `INTERVAL`",
				Action: func(c *cli.Context, every time.Duration) error {
					if every < minWatch {
						return usage(c, "--interval %s is too short: want %s at least", every, minWatch)
					}
					return nil
				},
			},
		},
		Action: asking(top),
	}
}

// top reads the daemon once before it takes the terminal: what is wrong from the
// beginning is an error as with any other command.
func top(c *cli.Context, client *api.Client) error {
	if !isTerminal(streamsOf(c).out) {
		return &usageError{"top needs a terminal", "`shunt stats --watch` prints"}
	}
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGHUP) // or the terminal would stay as it is
	defer stop()
	source := topClient{client}
	first, err := source.read(ctx, nil)
	if err != nil {
		return err
	}
	// A character set that tcell has no tables for has ASCII in it.
	tcell.SetEncodingFallback(tcell.EncodingFallbackASCII)
	screen, err := tcell.NewTerminfoScreen()
	if err != nil {
		return &usageError{
			fmt.Sprintf("top cannot use this terminal: TERM=%s: %v", os.Getenv("TERM"), err),
			"set TERM to what the terminal is, such as xterm or vt100; `shunt stats --watch` prints",
		}
	}
	model := newTopModel(topHost(c), c.Duration("interval"))
	model.accept(first)
	return (&topLoop{screen: screen, source: source, model: model, palette: colors(c)}).run(ctx)
}

// topHost is the name of the director's host: this one's, or where --server says.
func topHost(c *cli.Context) string {
	if server, err := url.Parse(global(c, "server")); err == nil && server.Hostname() != "" {
		return server.Hostname()
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "this host"
}

// topSource is where readings come from.
type topSource interface {
	// read asks for everything, and for the list of connections unless it is nil.
	read(ctx context.Context, list *api.ConnectionQuery) (topReading, error)
}

// topClient is the daemon as a source.
type topClient struct{ client *api.Client }

// topPatience is how long a daemon may take to answer all questions of a reading.
const topPatience = 15 * time.Second

// read implements topSource. A list that cannot be read does not void the rest.
func (s topClient) read(ctx context.Context, list *api.ConnectionQuery) (topReading, error) {
	ctx, cancel := context.WithTimeout(ctx, topPatience)
	defer cancel()
	var r topReading
	var err error
	if r.status, err = s.client.Status(ctx); err != nil {
		return r, err
	}
	if r.services, err = s.client.Services(ctx); err != nil {
		return r, err
	}
	if r.stats, err = s.client.Stats(ctx); err != nil {
		return r, err
	}
	r.at = time.Now()
	if list != nil {
		r.list = &topList{query: *list}
		for connection, err := range s.client.Connections(ctx, *list) {
			if err != nil {
				r.list.err = err
				break
			}
			r.list.connections = append(r.list.connections, connection)
		}
	}
	return r, nil
}
