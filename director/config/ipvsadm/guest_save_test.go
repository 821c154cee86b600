package ipvsadm_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// succeed runs the real ipvsadm, which must have nothing to say to the standard
// error, and returns what it writes.
func succeed(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := real(t, stdin, args...)
	if r.Status != 0 || r.Err != "" {
		t.Fatalf("ipvsadm %q < %q: %+v", args, stdin, r)
	}
	return r.Out
}

// inOrder returns commands that make the services with their servers in the order
// in which these were added, which ipvsadm -S does not tell.
func inOrder(services []director.Service) string {
	text := ""
	for _, s := range services {
		alone := s.Clone()
		alone.Servers = nil
		line, _ := ipvsadm.Writer{}.Save([]director.Service{alone})
		text += line
		for _, server := range s.Servers {
			alone.Servers = append(alone.Servers[:0], server)
			both, _ := ipvsadm.Writer{}.Save([]director.Service{alone})
			text += strings.TrimPrefix(both, line)
		}
	}
	return text
}

// TestGuestSave has the real ipvsadm restore drawn services and save them: every
// method, tunnel, flag and family, as Save writes them.
func TestGuestSave(t *testing.T) {
	ipvs.Guest(t)
	r := directortest.Random(t)
	for round := range 15 {
		services := drawServices(r)
		for i := range services { // wherever ipvsadm's order leads
			for j := range services[i].Servers {
				server := &services[i].Servers[j]
				if host := server.Address.Addr(); host.Is4() && r.IntN(2) == 0 {
					other := host.As4()
					other[0] = []byte{1, 100, 130, 192, 220}[r.IntN(5)]
					setHost(server, other)
				}
			}
		}
		succeed(t, "", "-C")
		succeed(t, inOrder(services), "-R")
		want, omitted := ipvsadm.Writer{}.Save(services)
		if len(omitted) > 0 {
			t.Fatal(omitted)
		}
		if diff := cmp.Diff(succeed(t, "", "-Sn"), want); diff != "" {
			t.Fatalf("round %d, -S -n of\n%s(-ipvsadm +Save):\n%s", round, inOrder(services), diff)
		}
		if round > 1 {
			continue // names are looked up in vain for long
		}
		want, _ = ipvsadm.Writer{Names: ipvsadm.System{}}.Save(services)
		if diff := cmp.Diff(succeed(t, "", "-S"), want); diff != "" {
			t.Fatalf("round %d, -S (-ipvsadm +Save):\n%s", round, diff)
		}
	}
	succeed(t, "", "-C")
}

// TestGuestSaveNames has names for both, and a mark that is negative for ipvsadm.
func TestGuestSaveNames(t *testing.T) {
	ipvs.Guest(t)
	const text = "-A -t 127.0.0.1:80\n-a -t 127.0.0.1:80 -r 127.0.0.1:443 -m\n-A -u [::1]:53\n-A -f 4294967295 -s sh -b flag-3\n-A --sctp-service 127.0.0.1:80\n" +
		"-A -t [::c000:201]:22\n-A -t [2001:db8:0:0:1:0:0:1]:65000\n"
	succeed(t, "", "-C")
	succeed(t, text, "-R")
	services := restored(t, text)
	for _, c := range []struct {
		option string
		writer ipvsadm.Writer
	}{{"-Sn", ipvsadm.Writer{}}, {"-S", ipvsadm.Writer{Names: ipvsadm.System{}}}} {
		want, _ := c.writer.Save(services)
		if diff := cmp.Diff(succeed(t, "", c.option), want); diff != "" {
			t.Errorf("%s (-ipvsadm +Save):\n%s", c.option, diff)
		}
	}
	succeed(t, "", "-C")
}

// TestGuestRestore has the real ipvsadm read the texts, and compares what it says
// and what the kernel has afterwards.
func TestGuestRestore(t *testing.T) {
	ipvs.Guest(t)
	for _, c := range restoreTexts {
		t.Run(c.name, func(t *testing.T) {
			succeed(t, "", "-C")
			got := real(t, c.text, "-R")
			var want result
			var services []director.Service
			for _, l := range (ipvsadm.Parser{}).Restore([]byte(c.text)) {
				r := outcome(t, l.Err)
				want.Status = r.Status
				want.Err += r.Err
				switch {
				case l.Err != nil:
				case l.Command.Operation == ipvsadm.Help:
					want.Out += ipvsadm.Parser{}.Usage()
				case l.Command.Operation == ipvsadm.Version:
					want.Out += ipvsadm.VersionText
				default:
					services = obey(t, services, l.Command)
				}
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("(-ipvsadm +Restore):\n%s", diff)
			}
			saved, _ := ipvsadm.Writer{}.Save(services)
			if diff := cmp.Diff(succeed(t, "", "-Sn"), saved); diff != "" {
				t.Errorf("what is there then (-ipvsadm +Restore):\n%s", diff)
			}
		})
	}
	succeed(t, "", "-C")
}

// TestGuestNames compares what tells the program's name, whatever that is.
func TestGuestNames(t *testing.T) {
	ipvs.Guest(t)
	for _, program := range []string{"ipvsadm", "/sbin/balance"} {
		p := ipvsadm.Parser{Program: program}
		_, err := p.Parse([]string{"-q"})
		for _, c := range []struct {
			arg  string
			want result
		}{{"-h", result{Out: p.Usage()}}, {"-v", result{Out: ipvsadm.VersionText}}, {"-q", outcome(t, err)}} {
			if diff := cmp.Diff(run(t, "/usr/sbin/ipvsadm", program, c.arg), c.want); diff != "" {
				t.Errorf("%s %s (-ipvsadm +ours):\n%s", program, c.arg, diff)
			}
		}
	}
}

// TestGuestPOSIX has options end where POSIXLY_CORRECT says so.
func TestGuestPOSIX(t *testing.T) {
	ipvs.Guest(t)
	t.Setenv("POSIXLY_CORRECT", "1")
	for _, line := range []string{"-L x -q", "x -L", "-A -t 192.0.2.1:80 x -s", "--set 1 2 3 -q", "--set 1 -2 x"} {
		args := strings.Fields(line)
		_, err := ipvsadm.Parser{POSIX: true}.Parse(args)
		if diff := cmp.Diff(real(t, "", args...), outcome(t, err)); diff != "" {
			t.Errorf("%s (-ipvsadm +Parse):\n%s", line, diff)
		}
	}
}

func TestGuestSaveScript(t *testing.T) {
	ipvs.Guest(t)
	for _, line := range []string{"-x", "-n --numeric", "x -n"} {
		args := strings.Fields(line)
		_, err := ipvsadm.SaveScript("/usr/sbin/ipvsadm-save", args)
		got := run(t, "/usr/sbin/ipvsadm-save", append([]string{"ipvsadm-save"}, args...)...)
		if diff := cmp.Diff(got, outcome(t, err)); diff != "" {
			t.Errorf("%s (-ipvsadm-save +SaveScript):\n%s", line, diff)
		}
	}
}

// TestGuestRefusal provokes the kernel, once for each line of ipvsadm's table that
// can be provoked.
func TestGuestRefusal(t *testing.T) {
	ipvs.Guest(t)
	succeed(t, "", "-C")
	succeed(t, "-A -t 192.0.2.1:80\n-a -t 192.0.2.1:80 -r 10.0.0.1\n", "-R")
	for _, c := range []struct {
		line      string
		operation ipvsadm.Operation
		errno     syscall.Errno
		exit      int
	}{
		{"-A -t 192.0.2.1:80", ipvsadm.AddService, syscall.EEXIST, 255},
		{"-A -t 192.0.2.2:80 -s nosuch", ipvsadm.AddService, syscall.ENOENT, 255},
		{"-A -t 192.0.2.2:80 -p --pe nosuch", ipvsadm.AddService, syscall.ENOENT, 255},
		{"-E -t 192.0.2.2:80", ipvsadm.EditService, syscall.ESRCH, 255},
		{"-E -t 192.0.2.1:80 -s nosuch", ipvsadm.EditService, syscall.ENOENT, 255},
		{"-D -t 192.0.2.2:80", ipvsadm.DeleteService, syscall.ESRCH, 255},
		{"-Z -t 192.0.2.2:80", ipvsadm.Zero, syscall.ESRCH, 255},
		{"-L -t 192.0.2.2:80", ipvsadm.List, syscall.ESRCH, 1},
		{"-a -t 192.0.2.2:80 -r 10.0.0.1", ipvsadm.AddServer, syscall.ESRCH, 255},
		{"-a -t 192.0.2.1:80 -r 10.0.0.1", ipvsadm.AddServer, syscall.EEXIST, 255},
		{"-a -t 192.0.2.1:80 -r 224.0.0.1", ipvsadm.AddServer, syscall.EINVAL, 255},
		{"-a -t 192.0.2.1:80 -r 10.0.0.2 -x 1 -y 2", ipvsadm.AddServer, syscall.ERANGE, 255},
		{"-e -t 192.0.2.2:80 -r 10.0.0.1", ipvsadm.EditServer, syscall.ESRCH, 255},
		{"-e -t 192.0.2.1:80 -r 10.0.0.2", ipvsadm.EditServer, syscall.ENOENT, 255},
		{"-d -t 192.0.2.2:80 -r 10.0.0.1", ipvsadm.DeleteServer, syscall.ESRCH, 255},
		{"-d -t 192.0.2.1:80 -r 10.0.0.2", ipvsadm.DeleteServer, syscall.ENOENT, 255},
		{"--stop-daemon master", ipvsadm.StopDaemon, syscall.ESRCH, 255},
		{"--start-daemon master --mcast-interface nosuch", ipvsadm.StartDaemon, syscall.ENODEV, 255},
	} {
		got := real(t, "", strings.Fields(c.line)...)
		want := result{Status: c.exit, Err: fmt.Sprintln(ipvsadm.Refusal(c.operation, c.errno))}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-ipvsadm +Refusal):\n%s", c.line, diff)
		}
	}
	succeed(t, "", "-C")
}
