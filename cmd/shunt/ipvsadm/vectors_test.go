package ipvsadm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The vocabulary of matrix and drawn: each option with values that are taken, at
// the bounds too, and some that the kernel refuses. Left out is what Shunt refuses
// by intention (see TestRefusals), and twos, whose module the guest lacks.
var (
	services = []string{
		"-t 192.0.2.1:80", "-t 192.0.2.1:443", "-t 10.0.0.9:80", "-u 192.0.2.1:53", "--sctp-service 192.0.2.2:99",
		"-t [2001:db8::1]:80", "-u [2001:db8::1]:53", "-t [::1.2.3.4]:80", "-f 7", "-f 8", "-f 2147483647", "-f 7 -6",
	}
	allPorts   = []string{"-t 192.0.2.1:0", "-u 192.0.2.3", "-t [2001:db8::1]:0"} // wants -p
	schedulers = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"}
	flags      = map[string][]string{
		"sh": {"sh-port", "sh-fallback", "sh-fallback,sh-port", "flag-1", "flag-3", "flag-1,flag-2,flag-3"},
		"mh": {"mh-port", "mh-fallback", "mh-port,mh-fallback", "flag-2", "flag-3"},
		"":   {"flag-1", "flag-2", "flag-3", "flag-1,flag-2,flag-3", "flag-3,flag-3"},
	}
	persistences = []string{"-p", "-p 1", "-p 2678400", "-p 60 -M 255.255.255.0", "-p 60 -M 0.0.0.0", "-p 60 -M 255.255.255.255"}
	prefixes     = []string{"-p 60 -M 64", "-p 60 -M 1", "-p 60 -M 128"}
	methods      = []string{
		"", "-g", "-m", "-i", "-i --tun-type ipip", "-i --tun-type gue --tun-port 5555", "-i --tun-type gue --tun-port 1 --tun-nocsum",
		"-i --tun-type gue --tun-port 65535 --tun-csum", "-i --tun-type gue --tun-port 65535 --tun-remcsum",
		"-i --tun-type gre", "-i --tun-type gre --tun-nocsum", "-i --tun-type gre --tun-csum",
	}
	weights = []string{"", "-w 0", "-w 1", "-w 65536", "-w 2147483647"}
	// The last two are refused: the lower threshold is above the upper one.
	thresholds = []string{"", "-x 10", "-x 10 -y 10", "-x 10 -y 1", "-x 2147483647 -y 2147483647", "-x 0 -y 0", "-x 10 -y 11", "-y 1"}
	hosts      = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.77", "172.16.0.1"}
	hosts6     = []string{"2001:db8:1::1", "2001:db8:1::2", "fd00::7", "::1.2.3.4"}
	never      = []string{"224.0.0.1", "255.255.255.255", "0.0.0.0"} // are no servers
	never6     = []string{"ff02::1", "::", "fe80::1"}
	singles    = []string{
		"-C", "-Z", "-L -n", "-S -n", "-L --timeout", "-L --daemon", "-L -n -c", "--set 0 0 0", "--set 1 2 3", "--set 2678400 0 2678400", "--set 900 120 300",
		"--start-daemon master --mcast-interface lo", "--start-daemon backup --mcast-interface lo --syncid 255",
		"--start-daemon master --mcast-interface lo --mcast-group 239.1.2.3 --mcast-port 1 --mcast-ttl 255 --sync-maxlen 100",
		"--start-daemon backup --mcast-interface lo --mcast-group ff02::5 --mcast-port 65535 --sync-maxlen 65507",
		"--stop-daemon master", "--stop-daemon backup", "--stop-daemon master --syncid 7",
	}
)

// address writes a server's, of which IPv6 has brackets.
func address(host, port string) string {
	switch {
	case !strings.Contains(host, ":"):
		return strings.TrimSuffix(host+":"+port, ":")
	case port == "":
		return host
	default:
		return "[" + host + "]:" + port
	}
}

func is6(service string) bool {
	return strings.Contains(service, "[") || strings.Contains(service, "-6")
}

// matrix goes through the options of each command, one after another beside
// defaults, on tables that it makes and takes apart.
func matrix() []string {
	lines := []string{"-L -n", "-S -n"}
	add := func(format string, args ...any) {
		lines = append(lines, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
	}
	// Services: every kind with every command, and whatever is not there.
	for _, s := range services {
		for _, command := range []string{"-E %s", "-D %s", "-Z %s", "-L -n %s", "-a %s -r 10.0.0.1 -i", "-A %s", "-A %s -s rr", "-L -n --nosort %s", "-Z %s"} {
			add(command, s)
		}
	}
	for _, s := range allPorts {
		add("-A %s -p 5", s)
		add("-A %s", s)
	}
	for _, command := range []string{"-A -t 198.51.100.1:1 -s nope", "-A -t 198.51.100.1:1 -p --pe nope", "-E -t 192.0.2.1:80 -s nope", "-A -t 192.0.2.1:80 -s nope"} {
		add("%s", command)
	}
	add("-C")
	// Schedulers with their flags, by -A and by -E.
	add("-A -t 192.0.2.1:80")
	for i, name := range schedulers {
		kinds := flags[name]
		if kinds == nil {
			kinds = flags[""][i%len(flags[""]):][:1]
		}
		add("-E -t 192.0.2.1:80 -s %s", name)
		for _, flag := range kinds {
			add("-E -t 192.0.2.1:80 -s %s -b %s", name, flag)
		}
		add("-A -u 192.0.2.9:%d -s %s -b %s -o", i+1, name, kinds[0])
	}
	add("-C")
	// Persistence.
	for i, p := range persistences {
		add("-A -u 192.0.2.1:%d %s", i+1, p)
		add("-A -f %d %s --pe sip", i+1, p)
		add("-E -u 192.0.2.1:%d", i+1)
	}
	for i, p := range prefixes {
		add("-A -t [2001:db8::1]:%d %s", i+1, p)
		add("-A -f %d -6 %s --pe sip -o", i+1, p)
	}
	add("-E -f 1 -s lc")
	add("-C")
	// Servers: methods, weights and thresholds, by -a and by -e.
	for _, s := range []string{"-t 192.0.2.1:80", "-u [2001:db8::1]:53", "-f 7", "-t 192.0.2.5:0"} {
		own, other, bad := hosts, hosts6, never
		if is6(s) {
			own, other, bad = hosts6, hosts, never6
		}
		if strings.HasSuffix(s, ":0") {
			add("-A %s -p", s)
		} else {
			add("-A %s", s)
		}
		for i, m := range methods {
			add("-a %s -r %s %s %s", s, address(own[0], fmt.Sprint(8000+i)), m, weights[i%len(weights)])
			add("-e %s -r %s %s -w %d", s, address(own[0], fmt.Sprint(8000+i)), methods[(i+5)%len(methods)], i)
		}
		for i, x := range thresholds {
			add("-a %s -r %s -m %s", s, address(own[1], fmt.Sprint(9000+i)), x)
			add("-e %s -r %s -m %s", s, address(own[1], fmt.Sprint(9000+i)), thresholds[(i+3)%len(thresholds)])
		}
		for _, host := range bad {
			add("-a %s -r %s -m", s, address(host, "80"))
			add("-e %s -r %s -m", s, address(host, "80"))
		}
		add("-a %s -r %s -i", s, address(other[0], "80"))
		add("-a %s -r %s -m", s, address(other[0], "80"))
		add("-a %s -r %s", s, address(own[2], ""))
		add("-a %s -r %s", s, address(own[2], ""))
		add("-L -n --nosort %s", s)
		add("-L -n --nosort --tun-info %s", s)
		add("-d %s -r %s", s, address(own[2], ""))
		add("-d %s -r %s", s, address(own[2], ""))
		add("-d %s -r %s", s, address(own[1], "9001"))
	}
	add("-S -n")
	add("-D -f 7")
	add("--start-daemon master --mcast-interface none0") // before one runs: the kernel looks at this first
	for _, line := range singles {
		add("%s", line)
	}
	// Daemons beside servers of another family.
	add("-A -t 192.0.2.1:80")
	add("-a -t 192.0.2.1:80 -r [2001:db8:1::1]:80 -i")
	add("--start-daemon master --mcast-interface lo")
	add("-d -t 192.0.2.1:80 -r [2001:db8:1::1]:80")
	add("--start-daemon master --mcast-interface lo")
	add("-a -t 192.0.2.1:80 -r [2001:db8:1::1]:80 -i")
	add("--stop-daemon master")
	add("-C")
	return lines
}

// drawn is a command line of a few services and servers, so that many are about
// something that is there.
func drawn(r *rand.Rand) string {
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	service := pick(slices.Concat(services[:3], services[5:9], allPorts[:1]))
	switch r.IntN(12) {
	case 0, 1, 2, 3: // services
		line := pick([]string{"-A", "-A", "-E", "-D"}) + " " + service
		if strings.HasPrefix(line, "-D") {
			return line
		}
		name := pick(schedulers)
		if r.IntN(3) > 0 {
			line += " -s " + name
			if r.IntN(2) == 0 {
				if kinds := flags[name]; kinds != nil {
					line += " -b " + pick(kinds)
				} else {
					line += " -b " + pick(flags[""])
				}
			}
		}
		if r.IntN(2) == 0 || slices.Contains(allPorts, service) {
			if is6(service) {
				line += " " + pick(prefixes)
			} else {
				line += " " + pick(persistences)
			}
			if r.IntN(3) == 0 {
				line += " --pe sip"
			}
		}
		if r.IntN(4) == 0 {
			line += " -o" // refused for TCP
		}
		return line
	case 4:
		return pick(singles[1:])
	case 5:
		return pick([]string{"-Z ", "-L -n ", "-L -n --nosort --stats ", "-L -n --thresholds "}) + service
	default: // servers
		line := pick([]string{"-a", "-a", "-a", "-e", "-e", "-d"}) + " " + service
		all := hosts[:2]
		if is6(service) != (r.IntN(12) == 0) {
			all = hosts6[:2]
		}
		if r.IntN(30) == 0 {
			all = append(never, never6...)
		}
		line += " -r " + address(pick(all), pick([]string{"", "80", "8080"}))
		if strings.HasPrefix(line, "-d") {
			return line
		}
		return strings.Join(strings.Fields(line+" "+pick(methods)+" "+pick(weights)+" "+pick(thresholds)), " ")
	}
}
