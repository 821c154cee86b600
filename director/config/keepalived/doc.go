// Package keepalived translates keepalived.conf into Shunt's state: the virtual
// servers, their groups and real servers, how those are known to be alive and what
// follows, the timeouts and the sync daemon. VRRP, BFD and mail have no counterpart in
// Shunt; each of them is named in a note, with what that means for packets.
//
// Checks are written out with keepalived's own times where it says none, so that a
// server is taken out when keepalived would: retry N is N+1 failures, one pass brings
// it back, and it is up before its first result unless alpha is set. What
// keepalived does once only is not: before a checker has run, one failure will do for
// it. Shunt asks all servers of a service the same, and keepalived each its own: the
// package translation makes one of those, with a note of what is lost.
//
// Reading goes in three steps. expand.go turns the text into directives' lines:
// comments, includes, lines for one machine only (@id), parameters ($NAME) and
// repetitions (~SEQ, ~LST). tree.go makes blocks of the lines. The others give
// them their meaning: what keepalived does with them, mistakes included, since it
// is what runs today that is to be carried.
//
// The language is that of keepalived 2.2 (keepalived.conf(5); keepalived:
// lib/parser.c, keepalived/check/check_parser.c, check_data.c and
// ipvswrapper.c), which later versions extend. Directives that are unknown give a
// note each.
//
// Start reading at Import.
package keepalived
