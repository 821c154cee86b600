package ipvsadm

import (
	_ "embed"
	"path"
	"strings"
)

// VersionText is what -v writes: the version whose language this is.
const VersionText = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"

//go:embed usage.txt
var usage string

// Usage returns what -h writes, byte for byte (ipvsadm.c, usage_exit); twos is
// missing there too.
func (p Parser) Usage() string {
	return VersionText + strings.ReplaceAll(usage, "{program}", p.withDefaults().Program)
}

// SaveScript reads the arguments of the script ipvsadm-save, whose name program
// is; numeric is whether it saves as -S -n does. The error is a *UsageError.
func SaveScript(program string, args []string) (numeric bool, err error) {
	for _, arg := range args {
		switch {
		case arg == "-n":
			numeric = true
		case strings.HasPrefix(arg, "-"):
			return false, &UsageError{
				Text: path.Base(program) + ": Script to save the IPVS table to stdout.\n   With the -n option, prints out the table in numeric format.",
				Exit: ExitFailed,
			}
		}
	}
	return numeric, nil
}
