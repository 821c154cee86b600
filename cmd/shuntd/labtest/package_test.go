package labtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

const root = "../../.."

// output runs a command in a folder, which must succeed.
func output(t *testing.T, folder, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = folder
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, text)
	}
	return string(text)
}

// packages builds all packages once and returns the paths of shunt's, and of the
// agent's Debian package.
func packages(t *testing.T) (deb, rpm, agent string) {
	t.Helper()
	directortest.Privileged(t) // files of root's, as they are installed
	folder := t.TempDir()
	output(t, root, "make", "-s", "package", "VERSION=v1.2.3", "DIST="+folder)
	for pattern, path := range map[string]*string{"shunt_*.deb": &deb, "shunt-1*.rpm": &rpm, "shunt-agent_*.deb": &agent} {
		found, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		*path = found[0]
	}
	return deb, rpm, agent
}

// TestPackages builds the packages and uses what is in them.
func TestPackages(t *testing.T) {
	deb, rpm, agent := packages(t)
	if got := output(t, ".", "dpkg-deb", "--field", deb, "Package", "Version", "Architecture"); !strings.HasPrefix(got, "Package: shunt\nVersion: 1.2.3") {
		t.Errorf("the package's control file says:\n%s", got)
	}
	there := t.TempDir()
	output(t, ".", "dpkg-deb", "--extract", deb, there)
	checkFiles(t, there, map[string]os.FileMode{
		"usr/sbin/shuntd":                                0o755,
		"usr/bin/shunt":                                  0o755,
		"usr/lib/systemd/system/shuntd.service":          0o644,
		"usr/lib/tmpfiles.d/shunt.conf":                  0o644,
		"usr/lib/sysusers.d/shunt.conf":                  0o644,
		"etc/shunt/shunt.yaml":                           0o640,
		"usr/share/doc/shunt/reference.yaml":             0o644,
		"usr/share/doc/shunt/reference-ipvs.yaml":        0o644,
		"usr/share/doc/shunt/ipvs.modules-load.conf":     0o644,
		"usr/share/shunt/shunt.schema.json":              0o644,
		"usr/share/shunt/grafana.json":                   0o644,
		"usr/share/man/man1/shunt.1.gz":                  0o644,
		"usr/share/man/man1/shunt-ipvsadm.1.gz":          0o644,
		"usr/share/doc/shunt/ldirectord.conf":            0o644,
		"usr/share/bash-completion/completions/shunt":    0o644,
		"usr/share/zsh/vendor-completions/_shunt":        0o644,
		"usr/share/fish/vendor_completions.d/shunt.fish": 0o644,
	})
	if got := output(t, ".", filepath.Join(there, "usr/sbin/shuntd"), "version"); !strings.HasPrefix(got, "shuntd v1.2.3 ") {
		t.Errorf("the packaged daemon says %q", got)
	}
	if got := output(t, ".", filepath.Join(there, "usr/bin/shunt"), "config", "check", filepath.Join(there, "etc/shunt/shunt.yaml")); strings.Contains(got, "error") {
		t.Errorf("the packaged configuration is refused: %s", got)
	}
	// An RPM begins with its lead (magic ed ab ee db).
	lead := make([]byte, 4)
	if f, err := os.Open(rpm); err != nil {
		t.Error(err)
	} else {
		_, _ = f.Read(lead)
		_ = f.Close()
	}
	if string(lead) != "\xed\xab\xee\xdb" {
		t.Errorf("%s begins with %x: no RPM", rpm, lead)
	}
	unit(t, there, "shuntd.service", secure)
	systemFiles(t, there)
	agentPackage(t, agent)
}

// agentPackage looks into the package for real servers.
func agentPackage(t *testing.T, deb string) {
	t.Helper()
	there := t.TempDir()
	output(t, ".", "dpkg-deb", "--extract", deb, there)
	checkFiles(t, there, map[string]os.FileMode{
		"usr/sbin/shunt-agent":                                 0o755,
		"usr/lib/systemd/system/shunt-agent-decap.service":     0o644,
		"usr/share/man/man1/shunt-agent.1.gz":                  0o644,
		"usr/share/doc/shunt-agent/decap.env":                  0o644,
		"usr/share/doc/shunt-agent/agent.yaml":                 0o644,
		"usr/lib/systemd/system/shunt-agent.service":           0o644,
		"usr/lib/sysusers.d/shunt-agent.conf":                  0o644,
		"usr/share/bash-completion/completions/shunt-agent":    0o644,
		"usr/share/zsh/vendor-completions/_shunt-agent":        0o644,
		"usr/share/fish/vendor_completions.d/shunt-agent.fish": 0o644,
	})
	if found, err := filepath.Glob(filepath.Join(there, "usr/*bin/*")); err != nil || len(found) != 1 {
		t.Errorf("programs in the agent's package: %v, %v", found, err)
	}
	if got := output(t, ".", filepath.Join(there, "usr/sbin/shunt-agent"), "version"); !strings.HasPrefix(got, "shunt-agent v1.2.3 ") {
		t.Errorf("the packaged agent says %q", got)
	}
	unit(t, there, "shunt-agent-decap.service", capable)
	unit(t, there, "shunt-agent.service", secure)
	output(t, ".", "systemd-sysusers", "--dry-run", filepath.Join(there, "usr/lib/sysusers.d/shunt-agent.conf"))
	// The example is one that the program takes: it says what is to be done, or is wrong.
	example := filepath.Join(there, "usr/share/doc/shunt-agent/agent.yaml")
	if got := output(t, ".", filepath.Join(there, "usr/sbin/shunt-agent"), "prepare", "--at-start", "--config", example); got != "" {
		t.Errorf("the packaged settings, which ask for no preparation, have said: %s", got)
	}
}

// checkFiles compares modes, and that there is something in each.
func checkFiles(t *testing.T, there string, modes map[string]os.FileMode) {
	t.Helper()
	for path, mode := range modes {
		info, err := os.Stat(filepath.Join(there, path))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != mode || info.Size() == 0 {
			t.Errorf("%s has mode %v and %d bytes, want mode %v", path, info.Mode().Perm(), info.Size(), mode)
		}
	}
}

// Exposures that a unit may have, in tenths of systemd-analyze's scale, which ends at 10.
const (
	secure  = "30"
	capable = "45" // with CAP_SYS_ADMIN and as root: for a moment, at the boot
)

// program is where a unit's line names one; with + it is root's.
var program = regexp.MustCompile(`(=\+?)/usr/sbin/`)

// unit has systemd check the unit as it is installed.
func unit(t *testing.T, there, name, exposure string) {
	t.Helper()
	path := filepath.Join(there, "usr/lib/systemd/system", name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The binary is where the package was unpacked; man pages are looked for on
	// the host.
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "Documentation=") {
			lines = append(lines, program.ReplaceAllString(line, "${1}"+there+"/usr/sbin/"))
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(output(t, ".", "systemd-analyze", "verify", "--man=no", path)) {
		// It looks at the host's units too, of which ldirectord's has a warning.
		if !strings.HasPrefix(line, "/lib/systemd/") && !strings.HasPrefix(line, "/usr/lib/systemd/") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	output(t, ".", "systemd-analyze", "security", "--offline=yes", "--threshold="+exposure, path)
}

// systemFiles has systemd check the package's other files.
func systemFiles(t *testing.T, there string) {
	t.Helper()
	for _, file := range []string{"sysusers.d", "tmpfiles.d"} {
		if _, err := os.Stat(filepath.Join(there, "usr/lib", file, "shunt.conf")); err != nil {
			t.Error(err)
		}
	}
	output(t, ".", "systemd-sysusers", "--dry-run", filepath.Join(there, "usr/lib/sysusers.d/shunt.conf"))
}

// TestInstall installs by make, as the README says, and runs what is installed.
func TestInstall(t *testing.T) {
	there := t.TempDir()
	output(t, root, "make", "-s", "install", "DESTDIR="+there, "PREFIX=/usr", "VERSION=v1.2.3")
	for _, path := range []string{
		"usr/sbin/shuntd", "usr/bin/shunt", "usr/sbin/shunt-agent", "usr/lib/systemd/system/shuntd.service", "usr/lib/systemd/system/shunt-agent.service", "usr/lib/tmpfiles.d/shunt.conf",
		"usr/lib/sysusers.d/shunt.conf", "etc/shunt/shunt.yaml", "usr/share/man/man1/shunt.1",
		"usr/share/bash-completion/completions/shunt", "usr/share/shunt/grafana.json",
	} {
		if info, err := os.Stat(filepath.Join(there, path)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
	// A configuration that is there is the operator's.
	config := filepath.Join(there, "etc/shunt/shunt.yaml")
	if err := os.WriteFile(config, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, root, "make", "-s", "install", "DESTDIR="+there, "PREFIX=/usr", "VERSION=v1.2.3")
	if text, err := os.ReadFile(config); err != nil || string(text) != "mine" {
		t.Errorf("the configuration was replaced: %q, %v", text, err)
	}
}
