package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReorder(t *testing.T) {
	for _, test := range []struct{ name, args, want string }{
		{"keeps_what_is_in_order", "service add --name web x", "service add --name web x"},
		{"moves_flags_before_arguments", "server add web 10.0.0.1 --method nat -w=3", "server add --method nat -w=3 web 10.0.0.1"},
		{"moves_global_flags_to_the_front", "service list -o json --socket /s", "--socket /s service list -o json"},
		{"flag_without_value_takes_none", "drops -a -o yaml", "drops -a -o yaml"},
		{"unknown_flags_stay_with_the_command", "service show web --nope", "service show --nope web"},
		{"an_argument_named_as_a_command_is_one", "service show service", "service show service"},
		{"nothing_after_two_dashes_is_a_flag", "service show -- --name", "service show -- --name"},
		{"a_lone_dash_is_an_argument", "service show - -o json", "service show -o json -- -"},
		{"writes_commands_out", "servi li -o json", "service list -o json"},
		{"help_is_a_flag", "help service add", "service add --help"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"shunt"}, strings.Fields(test.args)...)
			got, err := reorder(newApp(streams{}), args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, strings.Join(got[1:], " ")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestReorder_refuses_a_flag_without_its_value(t *testing.T) {
	_, err := reorder(newApp(streams{}), []string{"shunt", "service", "add", "tcp://192.0.2.1:80", "--name"})
	if err == nil || err.Error() != "flag --name needs a value" {
		t.Errorf("error %v", err)
	}
}
