package main

import (
	"bytes"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/shunt-lb/shunt/director/config/keepalived"
	"github.com/shunt-lb/shunt/director/config/ldirectord"
)

// assignment is a line of ldirectord.cf: blanks may be before the equals sign.
var assignment = regexp.MustCompile(`^([A-Za-z0-9]+)\s*=`)

// guess says whose configuration a text is, by its first line that tells; empty
// if none does. Assignments tell nothing unless ldirectord knows the name: shell
// scripts and blocks of keepalived's have them, too.
func guess(name string, data []byte) string {
	switch filepath.Base(name) {
	case "keepalived.conf":
		return fromKeepalived
	case "ldirectord.cf":
		return fromLdirectord
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for raw := range bytes.Lines(data) {
		line := string(bytes.TrimSpace(raw))
		words := strings.Fields(line)
		if len(words) == 0 || strings.ContainsAny(line[:1], "#!") {
			continue
		}
		directive, _, _ := strings.Cut(words[0], "{")
		key := assignment.FindStringSubmatch(line)
		switch {
		case path.Base(words[0]) == "ipvsadm" && len(words) > 1, strings.HasPrefix(words[0], "-"):
			return fromIPVSAdm
		case key != nil:
			if ldirectord.Knows(key[1]) {
				return fromLdirectord
			}
		case keepalived.Knows(directive), strings.HasPrefix(line, "~SEQ"), strings.HasPrefix(line, "~LST"),
			line[0] == '$', line[0] == '@' && len(words) > 1:
			return fromKeepalived
		}
	}
	return ""
}
