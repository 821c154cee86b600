package ipvsadm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"syscall"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// The names that shunt answers to by being ipvsadm, or one of its scripts.
const (
	program        = "ipvsadm"
	saveProgram    = "ipvsadm-save"
	restoreProgram = "ipvsadm-restore"
)

// Is reports whether a program called so, with a path or without, is one of
// ipvsadm's.
func Is(called string) bool {
	switch path.Base(called) {
	case program, saveProgram, restoreProgram:
		return true
	default:
		return false
	}
}

// Options are what a program of ipvsadm's is called with.
type Options struct {
	Program  string   // as it was called, with its path
	Args     []string // without the name
	In       io.Reader
	Out, Err io.Writer
	// Connect returns a client for the daemon, which Run closes.
	Connect func() (*api.Client, error)
	// Folder is where the daemon's socket is, for programs to take turns; empty: on
	// another host.
	Folder string
	// Patience is how long a daemon is waited for that may be being restarted.
	Patience time.Duration
	// Names are looked up for hosts and ports; nil: the system's, with a limit of
	// time.
	Names language.Names
	// POSIX is whether POSIXLY_CORRECT is in the environment.
	POSIX bool
}

// Exit statuses of ipvsadm beside language's.
const exitOK = 0

// Run does what the program of the name does, and returns its exit status.
func Run(ctx context.Context, o Options) int {
	if o.Names == nil {
		o.Names = newLimited(language.System{}, nameTime)
	}
	out := bufio.NewWriter(o.Out)
	s := &session{
		ctx: ctx, options: o, out: out,
		parser: language.Parser{Program: o.Program, Names: o.Names, POSIX: o.POSIX},
	}
	defer s.close()
	status := s.program()
	if err := out.Flush(); err != nil && status == exitOK {
		fmt.Fprintf(o.Err, "shunt: write the output: %v\n", err)
		return language.ExitFailed
	}
	return status
}

// session is one run of a program.
type session struct {
	ctx     context.Context
	options Options
	out     io.Writer
	parser  language.Parser
	daemon  *api.Client // nil until client was called
}

func (s *session) close() {
	if s.daemon != nil {
		s.daemon.Close()
	}
}

// client returns the session's client.
func (s *session) client() (*api.Client, error) {
	if s.daemon == nil {
		client, err := s.options.Connect()
		if err != nil {
			return nil, err
		}
		s.daemon = client
	}
	return s.daemon, nil
}

// program does what the program of the name does.
func (s *session) program() int {
	switch path.Base(s.options.Program) {
	case saveProgram:
		numeric, err := language.SaveScript(s.options.Program, s.options.Args)
		if err != nil {
			return s.misused(err)
		}
		c := language.Command{Operation: language.Save}
		if numeric {
			c.Given = language.OptNumeric
		}
		return s.command(c)
	case restoreProgram: // whatever its arguments are
		return s.restore(true)
	default:
		c, err := s.parser.Parse(s.options.Args)
		if err != nil {
			return s.misused(err)
		}
		return s.command(c)
	}
}

// command carries out a command line.
func (s *session) command(c language.Command) int {
	switch c.Operation {
	case language.Help:
		fmt.Fprint(s.out, s.parser.Usage())
		return exitOK
	case language.Version:
		fmt.Fprint(s.out, language.VersionText)
		return exitOK
	case language.Restore:
		return s.restore(false)
	case language.List, language.Save:
		return s.show(c)
	case language.Zero:
		return s.zero(c)
	default:
		return s.change([]language.Line{{Args: s.options.Args, Command: c}})
	}
}

// misused tells what is wrong with a command line.
func (s *session) misused(err error) int {
	usage, ok := errors.AsType[*language.UsageError](err)
	if !ok { // not a command line's fault
		return s.failed(language.Help, language.ExitUsage, err)
	}
	s.say(usage.Stderr())
	return usage.Exit
}

// say writes to the standard error.
func (s *session) say(text string) { fmt.Fprint(s.options.Err, text) }

// refuse tells of a refusal.
func (s *session) refuse(r *refusal) int {
	s.say(r.Error() + "\n")
	s.explain(r.because, r.hint)
	return language.ExitRefused
}

// explain writes the lines that ipvsadm does not have.
func (s *session) explain(because []string, hint string) {
	for _, line := range because {
		s.say("shunt: " + line + "\n")
	}
	if hint != "" {
		s.say("hint: " + hint + "\n")
	}
}

// failed tells why the daemon could not be asked, as ipvsadm tells that it has no
// access to the kernel's IPVS, or what the daemon answers an operation; status is
// for the latter.
func (s *session) failed(o language.Operation, status int, err error) int {
	problem, ok := errors.AsType[*api.Problem](err)
	switch {
	case s.ctx.Err() != nil:
		s.explain([]string{"interrupted"}, "")
		return language.ExitFailed
	case !ok:
		return s.unreachable(syscall.ENOPROTOOPT, err.Error(), "")
	case problem.Code == api.ProblemCodeNotRunning:
		return s.unreachable(syscall.ENOPROTOOPT, problem.Detail, problem.Hint)
	case problem.Code == api.ProblemCodePermission, problem.Code == api.ProblemCodeUnauthorized:
		return s.unreachable(syscall.EPERM, problem.Detail, problem.Hint)
	}
	s.refuse(answered(o, problem))
	return status
}

// unreachable is ipvsadm.c's main where ipvs_init fails.
func (s *session) unreachable(errno syscall.Errno, because, hint string) int {
	s.say(fmt.Sprintf("Can't initialize ipvs: %s\nAre you sure that IP Virtual Server is built in the kernel or as module?\n",
		language.Refusal(language.Help, errno)))
	s.explain([]string{because}, hint)
	return language.ExitUsage
}
