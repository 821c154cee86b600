package ipvsadm

import (
	"fmt"
	"net/netip"

	"github.com/shunt-lb/shunt/realserver"
)

// Parser reads command lines. The zero value reads them as ipvsadm would on this
// host.
type Parser struct {
	// Program is what the hint and the usage call the program; ipvsadm by default.
	Program string
	// Names looks up hosts and ports; System by default.
	Names Names
	// POSIX ends the options at the first argument that is none, as popt does
	// where POSIXLY_CORRECT is in the environment.
	POSIX bool
}

// Parse reads the arguments of ipvsadm, its name not among them; none at all are
// a list. The error is a *UsageError. Help and Version are commands: whatever
// follows them is not looked at.
func (p Parser) Parse(args []string) (Command, error) {
	p = p.withDefaults()
	if len(args) == 0 {
		return Command{Operation: List}, nil // ipvsadm.c, main
	}
	r := &reading{
		parser: p,
		scan:   scanner{args: args, posix: p.POSIX},
		command: Command{
			Service: Service{Netmask: fullMask},
			Server:  Server{Method: realserver.DR, Weight: 1},
		},
	}
	if err := r.all(); err != nil {
		return Command{}, err
	}
	return r.command, nil
}

func (p Parser) withDefaults() Parser {
	if p.Program == "" {
		p.Program = "ipvsadm"
	}
	if p.Names == nil {
		p.Names = System{}
	}
	return p
}

// hint is what an unknown command is answered with (ipvsadm.c, tryhelp_exit).
func (p Parser) hint() *UsageError {
	return &UsageError{
		Text: fmt.Sprintf("Try `%s -h' or '%s --help' for more information.", p.Program, p.Program),
		Exit: ExitRefused,
	}
}

// fail is a refusal by ipvsadm.c's fail(2, …).
func fail(format string, args ...any) error {
	return &UsageError{Text: fmt.Sprintf(format, args...), Exit: ExitUsage}
}

// reading is a command line on its way to a Command. The steps come in the order
// of ipvsadm.c's parse_options and process_options.
type reading struct {
	parser  Parser
	scan    scanner
	command Command
	flags   string // -b, for the end: it depends on -s
}

func (r *reading) all() error {
	done, err := r.first()
	if done || err != nil {
		return err
	}
	for _, step := range []func() error{r.others, r.arguments, r.readFlags, r.legal, r.service, r.daemon, r.realServer, r.list} {
		if err := step(); err != nil {
			return err
		}
	}
	r.clean()
	return nil
}

// first reads the command. Done is whether nothing else matters.
func (r *reading) first() (done bool, err error) {
	o, value, err := r.scan.option()
	if err != nil || !o.isCommand {
		return false, r.parser.hint()
	}
	r.command.Operation = o.operation
	switch o.operation {
	case Help, Version:
		r.command = Command{Operation: o.operation}
		return true, nil
	case StartDaemon, StopDaemon:
		switch role := Role(*value); {
		case role == Master, role == Backup:
			r.command.Daemon.Role = role
		case o.operation == StartDaemon:
			return false, fail("illegal start-daemon parameter specified")
		default:
			return false, fail("illegal start_daemon specified")
		}
	}
	return false, nil
}

// others reads all options but the first.
func (r *reading) others() error {
	for {
		o, value, err := r.scan.option()
		switch {
		case err == errEnd:
			return nil
		case err != nil:
			return &UsageError{Text: fmt.Sprintf("%s: %v", r.scan.last(), err), Exit: ExitRefused, Continue: true}
		case o.isCommand:
			return fail("invalid option `%s'", r.scan.last())
		case r.command.Has(o.kind):
			return fail("multiple '%s' options specified", o.kind)
		}
		r.command.Given |= o.kind
		if o.read != nil {
			if err := o.read(r, value); err != nil {
				return err
			}
		}
	}
}

// arguments takes those that are no options: the three timeouts.
func (r *reading) arguments() error {
	rest := r.scan.leftovers
	if r.command.Operation == SetTimeouts {
		if len(rest) < 3 {
			return fail("--set option requires 3 timeout values")
		}
		for i, value := range []*uint32{&r.command.Set.TCP, &r.command.Set.TCPFin, &r.command.Set.UDP} {
			var err error
			if *value, err = parseTimeout(rest[i], 0); err != nil {
				return err
			}
		}
		rest = rest[3:]
	}
	if len(rest) > 0 {
		return fail("unexpected argument %s", rest[0])
	}
	return nil
}

func (r *reading) readFlags() error {
	if r.flags == "" {
		return nil
	}
	var err error
	r.command.Service.Flags, err = parseFlags(r.command.Service.Scheduler, r.flags)
	return err
}

func (r *reading) legal() error {
	op := r.command.Operation
	return commandRules[op].check(r.command.Given, op.String(), "command")
}

func (r *reading) service() error {
	s := &r.command.Service
	if op := r.command.Operation; op != AddService && op != EditService {
		return nil
	}
	if s.Mark == 0 && s.Address.Port() == 0 && !s.Persistent {
		return fail("Zero port specified for non-persistent service")
	}
	if s.OnePacket && s.Mark == 0 && s.Protocol != udp {
		return fail("One-Packet Scheduling is only for UDP virtual services")
	}
	if s.Scheduler == "" {
		s.Scheduler = defaultScheduler
	}
	return nil
}

func (r *reading) daemon() error {
	if r.command.Operation == StartDaemon && r.command.Daemon.Interface == "" {
		r.command.Daemon.Interface = defaultInterface
	}
	return nil
}

func (r *reading) realServer() error {
	if op := r.command.Operation; op != AddServer && op != EditServer {
		return nil
	}
	service, server := r.command.Service, &r.command.Server
	if service.Mark == 0 && server.Method != realserver.NAT {
		server.Address = netip.AddrPortFrom(server.Address.Addr(), service.Address.Port())
	}
	isTunnel := server.Method == realserver.Tunnel
	if server.Address.Addr().Is4() != service.Address.Addr().Is4() && !isTunnel {
		return fail("Different address family is allowed only for tunneling servers")
	}
	if r.command.Has(OptTunType|tunnelOptions) && !isTunnel {
		return fail("Tunnel options conflict with forward method")
	}
	return tunnelRules[server.Tunnel.Type].check(r.command.Given&tunnelOptions, server.Tunnel.Type.String(), "tunnel type")
}

func (r *reading) list() error {
	c := r.command
	if c.Operation != List {
		return nil
	}
	if c.Has(OptConnection|OptTimeout|OptDaemon) && c.Has(OptStats|OptRate|OptThresholds) ||
		c.Has(OptTimeout|OptDaemon) && c.Has(OptPersistentConn) {
		return fail("options conflicts in the list command")
	}
	return nil
}

// clean leaves what the operation looks at.
func (r *reading) clean() {
	c := &r.command
	switch c.Operation {
	case AddService, EditService:
	case Zero:
		if s := c.Service; s.Mark == 0 && s.Address.Port() == 0 && s.Address.Addr().IsUnspecified() {
			c.Service, c.Given = Service{}, 0 // all of them (libipvs.c, ipvs_zero_service)
		}
		c.Service.Netmask = 0
	default:
		c.Service.Netmask = 0
	}
	switch c.Operation {
	case AddServer, EditServer:
	case DeleteServer:
		c.Server = Server{Address: c.Server.Address}
	default:
		c.Server = Server{}
	}
}
