package snmp

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadSecret(t *testing.T) {
	folder := t.TempDir()
	write := func(text string, mode os.FileMode) func(name string) error {
		return func(name string) error {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				return err
			}
			return os.Chmod(name, mode)
		}
	}
	for _, tt := range []struct {
		name string
		make func(name string) error
		want string
		err  string
	}{
		{"a line", write("s3cret word\n", 0o600), "s3cret word", ""},
		{"of Windows", write("s3cret\r\n", 0o640), "s3cret", ""},
		{"without its end", write("s3cret", 0o400), "s3cret", ""},
		{"the longest", write(strings.Repeat("s", 255)+"\r\n", 0o600), strings.Repeat("s", 255), ""},
		{"too long", write(strings.Repeat("s", 256), 0o600), "", "longer than 255 bytes"},
		{"far too long", write(strings.Repeat("s", 1<<20), 0o600), "", "longer than 255 bytes"},
		{"empty", write("\n", 0o600), "", "the file is empty"},
		{"lines", write("s3cret\nmore\n", 0o600), "", "more than one line"},
		{"for all to read", write("s3cret", 0o644), "", "anyone may use the file (mode 0644)"},
		{"for all to write", write("s3cret", 0o602), "", "anyone may use the file (mode 0602)"},
		{"missing", func(string) error { return nil }, "", "no such file or directory"},
		{"a folder", func(name string) error { return os.Mkdir(name, 0o700) }, "", "no regular file"},
		{"a pipe", func(name string) error { return syscall.Mkfifo(name, 0o600) }, "", "no regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(folder, strings.ReplaceAll(tt.name, " ", "-"))
			if err := tt.make(name); err != nil {
				t.Fatal(err)
			}
			got, err := readSecret(name)
			if got != tt.want || (err == nil) != (tt.err == "") {
				t.Fatalf("%q, %v; want %q, %s", got, err, tt.want, tt.err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), name)) {
				t.Errorf("%v, want %s", err, tt.err)
			}
		})
	}
}
