// Package doctor inspects the host a director runs on and says what is wrong
// with it: what was found, why it matters, and the command that fixes it.
//
// It owns the table of checks (Checks) and nothing that lasts: it reads /proc,
// /sys, netlink, ethtool, the pins, and what nft and iptables-save print, and
// changes nothing. It knows the services only as a list it is given, so that it
// works with a daemon and without one.
//
// A check that cannot look (a right or a file is missing) says so in a finding
// of severity unknown; the others go on. Everything is seen from the network
// namespace of the calling thread.
//
// Start reading at Inspect, then the table in checks.go; checks.md is the table
// for operators.
package doctor
