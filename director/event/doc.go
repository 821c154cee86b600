// Package event is the one stream of what happened to the director: changes,
// drift, servers that came or went, table pressure, drops that began,
// interfaces.
//
// It owns the events' names, which are stable, their numbering and the buffer
// from which a reader that was away catches up. Publishing logs the event and
// counts it, so that stream, log and metrics say the same. It knows nothing of
// who publishes and who reads: keys and addresses are text here.
//
// Start reading at Stream; names.go lists every name.
package event
