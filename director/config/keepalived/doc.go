// Package keepalived translates keepalived.conf into Shunt's state: the virtual
// servers, their groups and real servers, the timeouts and the sync daemon. VRRP,
// BFD and mail have no counterpart in Shunt, and checks and scripts are not carried;
// each of them is named in a note, with what that means for packets.
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
