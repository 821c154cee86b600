// Package watch tells what changed in a data plane: servers that lost or found
// their next hop, interfaces that went, tables that fill or are full, limits that
// are hit, guards that went on, drops that began, faults. It reads the statistics from time to time and publishes an event for
// what differs between two readings.
//
// It owns when a difference is worth an event: how long a new server may take to
// be resolved, how long a drop must be away to have ended, and the levels of
// pressure, with the hysteresis that keeps a value at a limit from telling the
// same thing again and again. It does not know which data plane it reads, and
// changes nothing.
//
// Start reading at Watcher.Run; each other file has one kind of difference.
// director/event/events.md describes the events.
package watch
