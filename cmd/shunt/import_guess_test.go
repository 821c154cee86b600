package main

import "testing"

// TestGuess says which program a text is taken for: by words that only that one has.
func TestGuess(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"saved":             {"-A -t 192.0.2.1:80 -s rr\n", fromIPVSAdm},
		"commands":          {"# x\nipvsadm -A -t 192.0.2.1:80\n", fromIPVSAdm},
		"path":              {"/sbin/ipvsadm -A -t 192.0.2.1:80\n", fromIPVSAdm},
		"shell_script":      {"#!/bin/sh\nPATH=/sbin\nipvsadm -A -t 192.0.2.1:80\n", fromIPVSAdm},
		"only_shell":        {"PATH=/sbin\nid=7\n", ""},
		"keepalived":        {"! x\nvirtual_server 192.0.2.1 80 {\n}\n", fromKeepalived},
		"brace":             {"global_defs{\n}\n", fromKeepalived},
		"bfd":               {"bfd_instance a {\nneighbor_ip=1\n}\nvirtual_server 192.0.2.1 80 {\n}\n", fromKeepalived},
		"static":            {"static_rules {\n -x\n}\nvirtual_server 192.0.2.1 80 {\n}\n", fromKeepalived},
		"condition":         {"@main virtual_server 192.0.2.1 80 {\n@main }\n", fromKeepalived},
		"sequence":          {"~SEQ(A, 1, 3) include ${A}.conf\n", fromKeepalived},
		"parameter":         {"\ufeff$A=1\n", fromKeepalived},
		"include":           {"includem /etc/keepalived/*.conf\n", fromKeepalived},
		"ldirectord":        {"virtual=192.0.2.1:80\n", fromLdirectord},
		"ldirectord_blanks": {"checktimeout = 10\nvirtual = 192.0.2.1:80\n", fromLdirectord},
		"ldirectord_bare":   {"supervised\nvirtual6=[2001:db8::1]:80\n", fromLdirectord},
		"nothing":           {"Lorem ipsum\n", ""},
		"empty":             {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := guess("x", []byte(test.text)); got != test.want {
				t.Errorf("taken for %q, want %q", got, test.want)
			}
		})
	}
	for name, want := range map[string]string{"/etc/keepalived/keepalived.conf": fromKeepalived, "ldirectord.cf": fromLdirectord} {
		if got := guess(name, nil); got != want {
			t.Errorf("%s is taken for %q, want %q", name, got, want)
		}
	}
}
