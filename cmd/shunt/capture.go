package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func captureCommand() *cli.Command {
	return &cli.Command{
		Name: "capture", Usage: "write packets as they come to the fast path, and as they leave it",
		Description: examples("tcpdump sees nothing that XDP sends or drops. Each packet is written twice, one after the other: as it\n"+
			"came, and as it leaves; comments say what has become of it, and of which service it is. Packets of a service are\n"+
			"those to it, those of its servers to its clients, ICMP errors about either, and fragments to or from their addresses.\n"+
			"There is one capture at a time; it takes the role admin, and while there is none it costs nothing.",
			"shunt capture --service web --write web.pcapng", "shunt capture --all --count 200 --write - | tshark -r -",
			"shunt capture --service web --service dns --after --duration 10s --write -"),
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "service", Usage: "packets of this `SERVICE`; several times for several"},
			&cli.BoolFlag{Name: "all", Usage: "packets of all services, and of none"},
			&cli.BoolFlag{Name: "before", Usage: "only as they came"},
			&cli.BoolFlag{Name: "after", Usage: "only as they leave"},
			&cli.Uint64Flag{Name: "count", Usage: "end after `N` records: two are one packet's"},
			&cli.DurationFlag{Name: "duration", Usage: "end after `TIME`"},
			&cli.IntFlag{Name: "snaplen", Usage: "at most `N` octets of a packet"},
			&cli.IntFlag{Name: "rate", Value: 1000, Usage: "at most `N` packets a second"},
			&cli.StringFlag{Name: "write", Aliases: []string{"w"}, Value: "-", Usage: "write pcapng to `FILE`; - is the standard output"},
		},
		Action: asking(capturePackets),
	}
}

func capturePackets(c *cli.Context, client *api.Client) error {
	query := api.CaptureQuery{Count: c.Uint64("count"), Duration: c.Duration("duration"), Snaplen: c.Int("snaplen"), Rate: c.Int("rate")}
	services := c.StringSlice("service")
	switch {
	case len(services) == 0 && !c.Bool("all"):
		return usage(c, "name a --service, or say --all")
	case len(services) > 0 && c.Bool("all"):
		return usage(c, "--service and --all exclude one another")
	case query.Rate < 1 || query.Snaplen < 0 || query.Duration < 0:
		return usage(c, "--rate, --snaplen and --duration want more than 0")
	}
	for _, ref := range services {
		listen, err := listenOf(c, client, ref)
		if err != nil {
			return err
		}
		query.Services = append(query.Services, listen)
	}
	if c.Bool("before") != c.Bool("after") {
		query.Point = "before"
		if c.Bool("after") {
			query.Point = "after"
		}
	}
	return writeCapture(c, client, query, c.String("write"))
}

// writeCapture writes a capture to the file, and says what it has come to. Who is
// interrupted has what was written until then.
func writeCapture(c *cli.Context, client *api.Client, query api.CaptureQuery, name string) (err error) {
	var to io.Writer = streamsOf(c).out
	if name == "-" && isTerminal(to) {
		return usage(c, "packets are not for a terminal: name a file, or go on with a pipe such as | tshark -r -")
	}
	if name != "-" {
		// Packets are private.
		file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("make the file of the packets: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		to = &captureFile{file: file}
	}
	report, err := client.Capture(c.Context, query, to)
	if c.Context.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "shunt: %s written", count(report.Written, "record"))
	if report.Limited > 0 {
		fmt.Fprintf(c.App.ErrWriter, ", %s beyond the rate left out", count(report.Limited, "packet"))
	}
	if report.Lost > 0 {
		fmt.Fprintf(c.App.ErrWriter, ", %s lost: what reads them is too slow", count(report.Lost, "record"))
	}
	fmt.Fprintln(c.App.ErrWriter)
	return nil
}

// captureFile is emptied by the first write to it: a capture that is refused leaves what
// was there, which may be one that is under way.
type captureFile struct {
	file  *os.File // not embedded: it would be copied to past Write
	begun bool
}

// Write writes behind what was written before.
func (f *captureFile) Write(b []byte) (int, error) {
	if !f.begun {
		info, err := f.file.Stat()
		if err == nil && info.Mode().IsRegular() { // pipes have nothing to empty
			err = f.file.Truncate(0)
		}
		if err != nil {
			return 0, err
		}
		f.begun = true
	}
	return f.file.Write(b)
}
