package api

// The media type of Server-Sent Events, and the names of those that are not
// events of the event stream.
const (
	eventStream       = "text/event-stream"
	countsName        = "counts"
	configurationName = "configuration"
	revisionName      = "revision"
	missedName        = "missed"
)
