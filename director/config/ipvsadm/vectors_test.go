package ipvsadm_test

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// optionValues are the options that take a value, with values to draw; every
// third one is refused, or might be.
var optionValues = map[string][]string{
	"-t":                {"192.0.2.1:80", "192.0.2.1:80", "192.0.2.1:http", "192.0.2.1", "[2001:db8::1]:80", "192.0.2.1:0", "2001:db8::1", "80", "192.0.2.1:70000", "[2001:db8::1]"},
	"-u":                {"192.0.2.1:53", "192.0.2.1:domain", "[2001:db8::1]:53", "0x7f.1:53", "192.0.2.1:nosuch", ""},
	"--sctp-service":    {"192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.1:http"},
	"--tcp-service":     {"192.0.2.1:80", "localhost:80", "192.0.2.256:80"},
	"-f":                {"7", "7", "4294967295", "0", "-1", "seven", "4294967296", " +7"},
	"-s":                {"wlc", "sh", "mh", "rr", "nosuch", "averyveryverylongname", ""},
	"-p":                {"300", "1", "0", "2678400", "2678401", "x", ""},
	"-M":                {"255.255.255.0", "64", "255.0.255.0", "129", "x.invalid", "0"},
	"-r":                {"10.0.0.1:80", "10.0.0.1", "[fe80::7]:80", "[fd00::7]:80", "10.0.0.1:https", "10.0.0.1:-1", "10", "localhost"},
	"-w":                {"1", "0", "65536", "2147483647", "2147483648", "-1", "x"},
	"-x":                {"100", "0", "2147483647", "2147483648", "x"},
	"-y":                {"50", "0", "-5", "99999999999999999999"},
	"--mcast-interface": {"lo", "eth0", "averyveryverylongname", ""},
	"--syncid":          {"1", "0", "255", "256", "x"},
	"--pe":              {"sip", "sip", "nosuch", ""},
	"-b":                {"sh-port", "mh-port,mh-fallback", "flag-1", "flag-1,flag-2,flag-3", "sh-fallback,", "nosuch", ""},
	"--mcast-group":     {"224.0.0.81", "239.1.2.3", "ff02::1", "10.0.0.1", "fe80::1", "x"},
	"--mcast-port":      {"8848", "1", "0", "65536"},
	"--mcast-ttl":       {"1", "255", "256", "0"},
	"--sync-maxlen":     {"1400", "65507", "65508", "0"},
	"--tun-type":        {"ipip", "gue", "gue", "gre", "gre", "GUE"},
	"--tun-port":        {"5555", "0", "x"},
}

// flagOptions take none.
var flagOptions = []string{
	"-m", "-i", "-g", "-n", "-c", "--timeout", "--daemon", "--stats", "--rate", "--thresholds", "--persistent-conn", "--nosort", "--sort", "-X",
	"-6", "-o", "--tun-info", "--tun-nocsum", "--tun-csum", "--tun-remcsum",
}

var longNames = map[string]string{
	"-t": "--tcp-service", "-u": "--udp-service", "-f": "--fwmark-service", "-s": "--scheduler", "-p": "--persistent", "-M": "--netmask",
	"-r": "--real-server", "-m": "--masquerading", "-i": "--ipip", "-g": "--gatewaying", "-w": "--weight", "-x": "--u-threshold",
	"-y": "--l-threshold", "-n": "--numeric", "-c": "--connection", "-X": "--exact", "-6": "--ipv6", "-o": "--ops", "-b": "--sched-flags",
	"-A": "--add-service", "-E": "--edit-service", "-D": "--delete-service", "-C": "--clear", "-L": "--list", "-l": "--list", "-Z": "--zero",
	"-a": "--add-server", "-e": "--edit-server", "-d": "--delete-server", "-R": "--restore", "-S": "--save",
}

// bases are a command line of each command that it accepts.
var bases = [][]string{
	{"-A", "-t", "192.0.2.1:80"},
	{"-E", "-t", "192.0.2.1:80"},
	{"-D", "-t", "192.0.2.1:80"},
	{"-C"},
	{"-L"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1:80"},
	{"-d", "-t", "192.0.2.1:80", "-r", "10.0.0.1:80"},
	{"-e", "-t", "192.0.2.1:80", "-r", "10.0.0.1:80"},
	{"--set", "0", "0", "0"},
	{"--start-daemon", "master"},
	{"--stop-daemon", "backup"},
	{"-R"},
	{"-S"},
	{"-Z"},
}

// optionNames are all options but those for a virtual service, sorted.
func optionNames() []string {
	names := slices.Clone(flagOptions)
	for name := range optionValues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// matrix is every command with every option, and without what it needs.
func matrix() [][]string {
	var all [][]string
	for _, base := range bases {
		for _, name := range optionNames() {
			line := append(slices.Clone(base), name)
			if values := optionValues[name]; values != nil {
				line = append(line, values[0])
			}
			all = append(all, line)
		}
		for i := 1; i+1 < len(base) && strings.HasPrefix(base[i], "-"); i += 2 {
			all = append(all, slices.Delete(slices.Clone(base), i, i+2))
		}
		all = append(all, base, base[:1])
	}
	return all
}

// draw returns a command line, of options that may fit the command or not.
func draw(r *rand.Rand) []string {
	names := optionNames()
	base := bases[r.IntN(len(bases))]
	if r.IntN(4) > 0 { // those with more to say
		base = bases[[]int{0, 0, 1, 4, 5, 5, 7, 9}[r.IntN(8)]]
	}
	line := slices.Clone(base[:1])
	rest := slices.Clone(base[1:])
	fitting := map[string][]string{
		"-A": {"-s", "-p", "-M", "-o", "--pe", "-b", "-6"}, "-E": {"-s", "-p", "-M", "-o", "--pe", "-b"},
		"-a": {"-m", "-i", "-g", "-w", "-x", "-y", "--tun-type", "--tun-port", "--tun-csum", "--tun-nocsum", "--tun-remcsum"},
		"-L": {"-n", "-c", "--stats", "--rate", "--timeout", "--daemon", "--nosort", "-X", "-t", "--thresholds", "--persistent-conn", "--tun-info", "--sort"},
	}
	fitting["-e"] = fitting["-a"]
	fitting["--start-daemon"] = []string{"--mcast-interface", "--mcast-group", "--mcast-port", "--mcast-ttl", "--syncid", "--sync-maxlen"}
	pool := fitting[base[0]]
	if base[0] == "--start-daemon" || base[0] == "--stop-daemon" {
		line, rest = append(line, rest[0]), rest[1:]
	}
	if len(rest) > 1 && r.IntN(3) == 0 { // another service
		service := []string{"-t", "-u", "--sctp-service", "-f", "-f"}[r.IntN(5)]
		rest[0], rest[1] = service, optionValues[service][r.IntN(len(optionValues[service]))]
		if service == "-f" && r.IntN(2) == 0 {
			rest = append(rest, "-6")
		}
	}
	line = append(line, rest...)
	for range r.IntN(5) {
		name := names[r.IntN(len(names))]
		if pool != nil && r.IntN(5) > 0 {
			name = pool[r.IntN(len(pool))]
		}
		line = append(line, spell(r, name)...)
	}
	return mangle(r, line)
}

// spell writes an option, with a value if it takes one, in one of the ways that
// popt reads.
func spell(r *rand.Rand, name string) []string {
	long, hasLong := longNames[name]
	values := optionValues[name]
	if values == nil {
		if hasLong && r.IntN(3) == 0 {
			return []string{long}
		}
		return []string{name}
	}
	value := values[min(r.IntN(len(values)), r.IntN(len(values)))]
	switch {
	case name == "-p" && r.IntN(2) == 0:
		return []string{name}
	case strings.HasPrefix(name, "--") && r.IntN(3) == 0:
		return []string{name + "=" + value}
	case hasLong && r.IntN(4) == 0:
		return []string{long + "=" + value}
	case hasLong && r.IntN(4) == 0:
		return []string{name + value}
	case hasLong && r.IntN(6) == 0:
		return []string{name + "=" + value}
	default:
		return []string{name, value}
	}
}

// mangle does something odd to one line in four.
func mangle(r *rand.Rand, line []string) []string {
	at := r.IntN(len(line))
	switch r.IntN(40) {
	case 0: // an argument too many
		return slices.Insert(line, at, []string{"stray", "", "-", "-p", "7"}[r.IntN(5)])
	case 1:
		return slices.Insert(line, at, "--")
	case 2: // one that is not known
		return slices.Insert(line, at, []string{"-q", "--nosuch", "-1", "--lis", "--=", "-=x", "-t=", "--numeric=1", "-n="}[r.IntN(9)])
	case 3, 4: // one missing
		return slices.Delete(line, at, at+1)
	case 5: // another order
		r.Shuffle(len(line), func(i, j int) { line[i], line[j] = line[j], line[i] })
	case 6, 7: // twice the same
		return append(line, line[at:]...)
	case 8, 9: // a bundle
		for i := range line {
			if i+1 < len(line) && len(line[i]) == 2 && len(line[i+1]) >= 2 && line[i+1][0] == '-' && line[i+1][1] != '-' && line[i] != "--" && line[i][0] == '-' {
				return slices.Replace(line, i, i+2, line[i]+line[i+1][1:])
			}
		}
	}
	return line
}

// oddities are command lines by hand.
var oddities = [][]string{
	{"-Ln"},
	{"-Lnc"},
	{"-lX", "--stats"},
	{"-At", "192.0.2.1:80"},
	{"-n"},
	{"-h", "--nosuch"},
	{"foo", "-L"},
	{"-L", "foo"},
	{"--", "-L"},
	{"-L", "--", "-n"},
	{"-L", "-"},
	{""},
	{"-"},
	{"-AD", "-t", "192.0.2.1:80"},
	{"-A", "-h"},
	{"-A", "-v", "-t", "192.0.2.1:80"},
	{"-A", "--start-daemon", "master"},
	{"-L", "-L"},
	{"--list=1"},
	{"-L="},
	{"-L", "-n="},
	{"-L", "-nc="},
	{"-Lnz"},
	{"-L", "--nosuch=1"},
	{"-L", "-\xff"},
	{"--LIST"},
	{"--add-servic", "-t", "192.0.2.1:80"},
	{"--start-daemon"},
	{"--start-daemon", "slave"},
	{"--start-daemon="},
	{"--start-daemon=master", "--syncid", "x"},
	{"--stop-daemon", "slave"},
	{"--stop-daemon", "-1"},
	{"--set"},
	{"--set", "1", "2"},
	{"--set", "1", "2", "3", "4"},
	{"--set", "1", "x", "y"},
	{"--set", "-1", "2", "3"},
	{"--set", "--", "-1", "2", "3"},
	{"--set", "1", "2", "2678401"},
	{"--set", "1", "2", "2678400", "-n"},
	{"--set", "-n", "x"},
	{"-A", "-t"},
	{"-A", "-t", ""},
	{"-A", "-t", ":80"},
	{"-A", "-t", "12345"},
	{"-A", "-t", "12345:80"},
	{"-A", "-t", "0300.0.02.1:80"},
	{"-A", "-t", "0x"},
	{"-A", "-t", "1.2.3.4.5:80"},
	{"-A", "-t", "1.2.3:80"},
	{"-A", "-t", "1.2.65536:80"},
	{"-A", "-t", "192.0.2.1 x:80"},
	{"-A", "-t", " 192.0.2.1:80"},
	{"-A", "-t", "08.1.1.1:80"},
	{"-A", "-t", "192.0.2.1:"},
	{"-A", "-t", "192.0.2.1: 80"},
	{"-A", "-t", "192.0.2.1:+80"},
	{"-A", "-t", "192.0.2.1:-0"},
	{"-A", "-t", "192.0.2.1:80 "},
	{"-A", "-t", "192.0.2.1:0x50"},
	{"-A", "-t", "192.0.2.1:HTTP"},
	{"-A", "-t", "192.0.2.1:www"},
	{"-A", "-u", "192.0.2.1:http"},
	{"-A", "-t", "localhost:80"},
	{"-A", "-t", "nosuch.invalid:80"},
	{"-A", "-t", "nosuch.invalid"},
	{"-A", "-t", "[192.0.2.1]:80"},
	{"-A", "-t", "[192.0.2.1]:80", "-p"},
	{"-A", "-t", "[192.0.2.1:80]:81"},
	{"-A", "-t", "[2001:db8::1]"},
	{"-A", "-t", "[2001:db8::1]80"},
	{"-A", "-t", "[2001:db8::1]:"},
	{"-A", "-t", "[2001:db8::1"},
	{"-A", "-t", "[]:80"},
	{"-A", "-t", "[fe80::1%lo]:80"},
	{"-A", "-t", "::ffff:192.0.2.1", "-p"},
	{"-A", "-t", "[::ffff:192.0.2.1]:80"},
	{"-A", "-t", "2001:db8::1:80"},
	{"-A", "-t", "2001:db8::1", "-p"},
	{"-A", "-f", "1", "-t", "192.0.2.1:80"},
	{"-A", "-f", ""},
	{"-A", "-f", "1x"},
	{"-A", "-f", "9223372036854775808"},
	{"-A", "-6", "-f", "1"},
	{"-A", "-f", "1", "-6", "-6"},
	{"-A", "-t", "192.0.2.1:80", "-6"},
	{"-A", "-f", "1", "-M", "255.255.255.0", "-6"},
	{"-A", "-f", "1", "-6", "-M", "255.255.255.0"},
	{"-A", "-f", "1", "-6", "-M", "0"},
	{"-A", "-f", "1", "-6", "-M", "x"},
	{"-A", "-t", "[2001:db8::1]:80", "-p", "-M", "64x"},
	{"-A", "-t", "[2001:db8::1]:80", "-p", "-M", "4294967360"},
	{"-A", "-t", "[2001:db8::1]:80", "-p", "-M", "99999999999999999999"},
	{"-A", "-M", "255.255.255.0", "-t", "[2001:db8::1]:80", "-p"},
	{"-A", "-M", "localhost", "-t", "192.0.2.1:80", "-p"},
	{"-A", "-M", "", "-t", "192.0.2.1:80", "-p"},
	{"-A", "-t", "192.0.2.1:80", "-p", "-s", "rr"},
	{"-A", "-t", "192.0.2.1:80", "-p", "--", "-s", "rr"},
	{"-A", "-t", "192.0.2.1:80", "-p="},
	{"-A", "-t", "192.0.2.1:80", "-p=5"},
	{"-A", "-t", "192.0.2.1:80", "-ps"},
	{"-A", "-t", "192.0.2.1:80", "-p", ""},
	{"-A", "-t", "192.0.2.1:80", "-p", "-5"},
	{"-A", "-t", "192.0.2.1:80", "-p-5"},
	{"-A", "-t", "192.0.2.1:80", "--persistent"},
	{"-A", "-t", "192.0.2.1:80", "-p", "1", "-p", "x"},
	{"-A", "-t", "192.0.2.1", "-b", "nosuch"},
	{"-A", "-t", "192.0.2.1:80", "-b", "sh-port"},
	{"-A", "-t", "192.0.2.1:80", "-b", "sh-port", "-s", "sh"},
	{"-A", "-t", "192.0.2.1:80", "-s", "mh", "-b", ",mh-port,,flag-3,"},
	{"-A", "-t", "192.0.2.1:80", "-s", "mh", "-b", "mh-port,sh-port"},
	{"-A", "-t", "192.0.2.1:80", "-s", "mh", "-b", "mh-port, mh-fallback"},
	{"-A", "-t", "192.0.2.1:80", "-s", "sh", "-b", strings.Repeat("sh-port,", 20)},
	{"-L", "-b", "sh-port"},
	{"-L", "-s", "sh", "-b", "sh-port"},
	{"-A", "-t", "192.0.2.1:80", "-o"},
	{"-A", "-u", "192.0.2.1:80", "-o"},
	{"-A", "-f", "1", "-o"},
	{"-A", "--sctp-service", "192.0.2.1:80", "-o"},
	{"-a", "-r", "10.0.0.1", "-t", "192.0.2.1:80"},
	{"-a", "-r", "10.0.0.1:http", "-t", "192.0.2.1:80"},
	{"-a", "-t", "192.0.2.1:80", "-r", "[fd00::1]:80"},
	{"-a", "-t", "192.0.2.1:80", "-r", "[fd00::1]:80", "-i"},
	{"-d", "-t", "192.0.2.1:80", "-r", "[fd00::1]:80"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-m", "-i"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "--tun-type", "ipip"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-i", "--tun-type", "gue"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-i", "--tun-type", "gue", "--tun-port", "1", "--tun-csum", "--tun-remcsum"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-i", "--tun-type", "gre", "--tun-nocsum", "--tun-csum"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-i", "--tun-type", "gre", "--tun-remcsum"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-i", "--tun-csum"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-w", " 1"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-w", "1 "},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-w", "+1"},
	{"-a", "-t", "192.0.2.1:80", "-r", "10.0.0.1", "-w", "0x10"},
	{"-L", "-c", "--stats"},
	{"-L", "--timeout", "--persistent-conn"},
	{"-L", "-c", "--persistent-conn"},
	{"-L", "-c", "--timeout"},
	{"-L", "--daemon", "--timeout", "-t", "192.0.2.1:80"},
	{"-L", "--sort", "--sort"},
	{"--start-daemon", "master", "--mcast-group", "::ffff:224.0.0.1"},
	{"--start-daemon", "master", "--mcast-group", "224.1"},
	{"--start-daemon", "master", "--mcast-group", ""},
	{"--start-daemon", "master", "--mcast-group", "ff02::1%lo"},
	{"-A", "-t", "!#:+", "192.0.2.1:80"},
	{"-A", "-t=!#:+", "192.0.2.1:80", "-s", "rr"},
	{"-A", "-t", "!#:+:!#:+", "80"},
	{"-A", "-t", "!#:+"},
	{"-A", "-t", "!#x", "-s", "rr"},
	{"-R", "-n"},
	{"-S", "-n", "-X"},
	{"-Z", "-f", "3"},
}
