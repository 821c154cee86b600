// Package ldirectord translates ldirectord.cf into Shunt's state: the virtual
// services and their real servers. Checks, fallback servers and scripts are
// not carried, and mail has no counterpart in Shunt; each is named in a note, with
// what that means for packets.
//
// The language is that of ldirectord 4.12 (ldirectord(8); its source, read_config
// and what it calls): keys with values, those of a virtual service indented by
// four blanks or a tab below it, up to the first line that is not, an empty one
// included. ldirectord does not start with a text it does not understand; here
// each line that it would not start with gives a note, and the rest is read.
//
// Start reading at Import.
package ldirectord
