// Package ldirectord translates ldirectord.cf into Shunt's state: the virtual
// services, their real servers, how those are known to be alive, the fallback servers
// and the maintenance folder. Mail has no counterpart in Shunt; it is named in a note.
//
// Checks are written out with ldirectord's own times where it says none. Where Shunt
// does not speak a protocol, the nearest thing is asked, such as the greeting, with a
// note of what is asked less (check.go). Shunt asks all servers of a service the same,
// and ldirectord each its own: the package translation makes one of those.
//
// The language is that of ldirectord 4.12 (ldirectord(8); its source, read_config
// and what it calls): keys with values, those of a virtual service indented by
// four blanks or a tab below it, up to the first line that is not, an empty one
// included. ldirectord does not start with a text it does not understand; here
// each line that it would not start with gives a note, and the rest is read.
//
// Start reading at Import.
package ldirectord
