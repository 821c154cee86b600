package ipvsadm

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// show carries out -L and -S.
func (s *session) show(c language.Command) int {
	client, err := s.client()
	if err != nil {
		return s.failed(language.Help, language.ExitUsage, err)
	}
	switch {
	case c.Operation == language.Save:
		err = s.save(client, c)
	case c.Has(language.OptConnection):
		err = s.connections(client, c)
	case c.Has(language.OptService):
		return s.one(client, c)
	case c.Has(language.OptTimeout):
		err = s.timeouts(client)
	case c.Has(language.OptDaemon):
		err = s.syncDaemons(client)
	default:
		var v view
		if v, err = s.look(client); err == nil {
			s.list(c).all(v, director.ServiceKey{})
		}
	}
	if err != nil {
		return s.failed(language.List, language.ExitFailed, err)
	}
	return exitOK
}

func (s *session) list(c language.Command) list {
	return list{out: s.out, names: s.writer(c), given: c.Given}
}

// writer writes addresses as numbers with -n, else by their names.
func (s *session) writer(c language.Command) language.Writer {
	if c.Has(language.OptNumeric) {
		return language.Writer{}
	}
	return language.Writer{Names: s.options.Names}
}

// look reads what the kernel holds, again where the daemon is being restarted.
func (s *session) look(client *api.Client) (v view, err error) {
	err = s.patiently(func() error {
		v, err = look(s.ctx, client)
		return err
	})
	return v, err
}

// one shows a single service.
func (s *session) one(client *api.Client, c language.Command) int {
	v, err := s.look(client)
	if err != nil {
		return s.failed(language.List, language.ExitFailed, err)
	}
	key := c.Service.Key()
	if _, found := v.services[key]; !found {
		s.say(language.Refusal(language.List, syscall.ESRCH) + "\n")
		return language.ExitFailed
	}
	s.list(c).all(v, key)
	return exitOK
}

// save carries out -S. What ipvsadm's language cannot say is an error, after all
// else was written: a file that lacks something must not pass for the whole.
func (s *session) save(client *api.Client, c language.Command) error {
	v, err := s.look(client)
	if err != nil {
		return err
	}
	text, omitted := s.writer(c).Save(v.saved())
	fmt.Fprint(s.out, text)
	if len(omitted) == 0 {
		return nil
	}
	var lines []string
	for _, err := range omitted {
		lines = append(lines, err.Error())
	}
	return &api.Problem{Code: api.ProblemCodeUnsupported, Detail: strings.Join(lines, "\n"), Hint: "`shunt export` has words for everything"}
}

func (s *session) timeouts(client *api.Client) error {
	var found api.Found
	if err := s.patiently(func() (err error) {
		found, err = client.Found(s.ctx)
		return err
	}); err != nil {
		return err
	}
	seconds := func(d api.Duration) int64 { return int64(time.Duration(d) / time.Second) }
	t := found.Timeouts
	fmt.Fprintf(s.out, "Timeout (tcp tcpfin udp): %d %d %d\n", seconds(t.TCP), seconds(t.TCPFin), seconds(t.UDP))
	return nil
}

func (s *session) syncDaemons(client *api.Client) error {
	var found api.Found
	if err := s.patiently(func() (err error) {
		found, err = client.Found(s.ctx)
		return err
	}); err != nil {
		return err
	}
	for _, d := range found.Sync {
		fmt.Fprint(s.out, daemonLine(d))
	}
	return nil
}

// daemonLine is a line of --daemon (ipvsadm.c, list_daemon).
func daemonLine(d api.FoundSync) string {
	line := fmt.Sprintf("%s sync daemon (mcast=%s, syncid=%d", d.Role, d.Interface, d.ID)
	if d.MaxLength != 0 {
		line += fmt.Sprintf(", maxlen=%d", d.MaxLength)
	}
	if d.Group != "" {
		line += fmt.Sprintf(", group=%s", d.Group)
	}
	if d.Port != 0 {
		line += fmt.Sprintf(", port=%d", d.Port)
	}
	if d.TTL != 0 {
		line += fmt.Sprintf(", ttl=%d", d.TTL)
	}
	return line + ")\n"
}
