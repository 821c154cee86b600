package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/script"
)

// scriptProbe runs a command as a user.
type scriptProbe struct {
	command script.Command
	meaning realserver.StatusMeaning
}

func newScriptProbe(check realserver.Check, target Target, scriptUser string) *scriptProbe {
	port := func(own uint16) string {
		if check.Port != 0 {
			own = check.Port
		}
		return strconv.Itoa(int(own))
	}
	address := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	values := strings.NewReplacer("%%", "%",
		"%h", address(target.Server.Addr()), "%p", port(target.Server.Port()),
		"%v", address(target.Virtual.Addr()), "%q", strconv.Itoa(int(target.Virtual.Port())))
	p := &scriptProbe{
		meaning: check.Script.Status,
		command: script.Command{
			Args: []string{check.Script.Command[0]}, User: defaultTo(check.Script.User, defaultTo(scriptUser, DefaultScriptUser)),
		},
	}
	for _, arg := range check.Script.Command[1:] {
		p.command.Args = append(p.command.Args, values.Replace(arg))
	}
	return p
}

func (p *scriptProbe) ask(ctx context.Context) Result {
	output, status, err := p.command.Run(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = because("run "+p.command.Args[0], context.DeadlineExceeded)
	}
	if err != nil {
		return Result{Detail: output, Err: err}
	}
	return p.means(status, output)
}

// means says what a status means.
func (p *scriptProbe) means(status int, output string) Result {
	result := Result{Detail: output}
	switch {
	case status == 0:
	case p.meaning == realserver.StatusNagios && status == 1:
		result.Warning = "the script warns: " + printable(output)
	case p.meaning == realserver.StatusWeight && status >= 2:
		weight := int64(status - 2)
		result.Weight, result.Absolute = &weight, true
	default:
		result.Err = fmt.Errorf("status %d: %s", status, printable(output))
		if output == "" {
			result.Err = fmt.Errorf("status %d", status)
		}
	}
	return result
}
