package ipvsadm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// restoreTexts are inputs of ipvsadm -R, each of commands that an empty kernel
// takes or that ipvsadm refuses, with the numbers of the lines that it comes to.
var restoreTexts = []struct {
	name, text string
	lines      []int
}{
	{"nothing", "", nil},
	{"empty_lines", "\n \n\t\n", nil},
	{"save_file", "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 2\n", []int{1, 2}},
	{"no_newline_at_the_end", "-A -t 192.0.2.1:80\n-A -t 192.0.2.1:81", []int{1, 2}},
	{"one_blank_at_the_end", "-A -t 192.0.2.1:80\n-A -t 192.0.2.1:81 ", []int{1, 2}},
	{"two_blanks_at_the_end", "-A -t 192.0.2.1:80\n-A -t 192.0.2.1:81 \t", []int{1}},
	{"three_blanks_at_the_end", "-A -t 192.0.2.1:80\n-A -t 192.0.2.1:81 \r\t", []int{1}},
	{"blanks_alone_at_the_end", "-A -t 192.0.2.1:80\n ", []int{1}},
	{"name_of_the_program", "ipvsadm -A -t 192.0.2.1:80\n-A ipvsadm -t ipvsadm 192.0.2.1:81\nipvsadm\n", []int{1, 2}},
	{"other_name", "/sbin/ipvsadm -C\n-A -t 192.0.2.1:80\n", []int{1}},
	{"carriage_returns", "-A -t 192.0.2.1:80 -s rr\r\n\r\n-A\t-u\t192.0.2.1:53\r\n", []int{1, 3}},
	{"indented", "   -A -t 192.0.2.1:80   -s   rr   \n\t-C\n", []int{1, 2}},
	{"other_white_space_is_text", "-A -t 192.0.2.1:80\v-s rr\n", []int{1}},
	{"quotes_are_text", "-A -t '192.0.2.1:80'\n", []int{1}},
	{"comment", "# a comment\n-A -t 192.0.2.1:80\n", []int{1}},
	{"comment_behind", "-A -t 192.0.2.1:80 # web\n-A -t 192.0.2.1:81\n", []int{1}},
	{"unknown_option_goes_on", "-A -t 192.0.2.1:80 -q\n-A -t 192.0.2.1:81\n", []int{1, 2}},
	{"unknown_option_at_the_end", "-A -t 192.0.2.1:80\n-A -t\n", []int{1, 2}},
	{"refusal_ends", "-A -t 192.0.2.1:80\n-A -t 192.0.2.1\n-A -t 192.0.2.1:81\n", []int{1, 2}},
	{"unknown_command_ends", "-q\n-A -t 192.0.2.1:80\n", []int{1}},
	{"restore_in_restore", "-A -t 192.0.2.1:80\n-R\n-C\n", []int{1, 2}},
	{"help_ends", "-A -t 192.0.2.1:80\n-h\n-C\n", []int{1, 2}},
	{"version_ends", "-v\n-A -t 192.0.2.1:80\n", []int{1}},
	{"zero_byte_ends_a_word", "-A -t 192.0.2.1:80\x00junk\n", []int{1}},
	{"zero_byte_alone", "-C \x00\n-A -t 192.0.2.1:80\n", []int{1}},
	{"edits", "-A -t 192.0.2.1:80 -s sh -b sh-port -p 9\n-E -t 192.0.2.1:80\n-a -t 192.0.2.1:80 -r 10.0.0.1 -w 7\n-e -t 192.0.2.1:80 -r 10.0.0.1 -i\n" +
		"-a -t 192.0.2.1:80 -r 10.0.0.2\n-d -t 192.0.2.1:80 -r 10.0.0.1\n-A -f 3\n-D -f 3\n", []int{1, 2, 3, 4, 5, 6, 7, 8}},
	{"flush", "-A -t 192.0.2.1:80\n-C\n-A -t 192.0.2.1:81\n", []int{1, 2, 3}},
}

func TestRestore(t *testing.T) {
	for _, c := range restoreTexts {
		t.Run(c.name, func(t *testing.T) {
			var numbers []int
			for _, l := range (ipvsadm.Parser{Names: fewNames{}}).Restore([]byte(c.text)) {
				numbers = append(numbers, l.Number)
			}
			if diff := cmp.Diff(c.lines, numbers); diff != "" {
				t.Errorf("numbers of lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRestoreNeedsNoOtherProgramsHint(t *testing.T) {
	lines := ipvsadm.Parser{Program: "balance"}.Restore([]byte("-R\n"))
	want := "Try `balance -h' or 'balance --help' for more information."
	if len(lines) != 1 || lines[0].Err == nil || lines[0].Err.Error() != want {
		t.Errorf("lines %+v, want the hint alone", lines)
	}
}

func TestParseSave(t *testing.T) {
	p := ipvsadm.Parser{Names: fewNames{}}
	lines, err := p.ParseSave([]byte("# saved by hand\n-A -t 192.0.2.1:80\n\n#-C\n--set 1 2 3\n--start-daemon master  "))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, l := range lines {
		got += fmt.Sprintf("%d %v\n", l.Number, l.Command.Operation)
	}
	if want := "2 add-service\n5 set\n6 start-daemon\n"; got != want {
		t.Errorf("lines\n%s, want\n%s", got, want)
	}
	for _, c := range []struct{ text, want string }{
		{"-A -t 192.0.2.1:80\n\n-A -t 192.0.2.1\n", "line 3: Zero port specified for non-persistent service"},
		{"-A -t 192.0.2.1:80 -q\n-C\n", "line 1: -q: unknown option"},
		{"-A -t 192.0.2.1:80 # web\n", "line 1: unexpected argument #"},
		{"-L\n", "line 1: -L changes nothing: want commands that do"},
		{"--help\n", "line 1: --help changes nothing: want commands that do"},
		{"-C\n-R\n", "line 2: Try `ipvsadm -h' or 'ipvsadm --help' for more information."},
		{"virtual=192.0.2.1:80\n", "line 1: Try `ipvsadm -h' or 'ipvsadm --help' for more information."},
	} {
		_, err := p.ParseSave([]byte(c.text))
		if located := (*ipvsadm.LineError)(nil); !errors.As(err, &located) || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
}

// TestStripComments has ipvsadm-restore's grep -v '^#'.
func TestStripComments(t *testing.T) {
	got := string(ipvsadm.StripComments([]byte("#a\n-C\n #b\n#c\n-A #d")))
	if want := "\n-C\n #b\n\n-A #d\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if strings.Count(got, "\n") != 5 {
		t.Errorf("%q: the lines have other numbers", got)
	}
}
