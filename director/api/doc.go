// Package api is the daemon's control interface: REST with JSON over a Unix
// socket that only root can open, and the client that speaks it.
//
// It owns the routes (routes.go, one table), the JSON models (models.go, the
// only file that says what goes over the wire), the translation between models
// and the director's values (convert.go), the errors as problem+json
// (problem.go) and the socket (listen.go). It decides nothing: every change is
// handed to the Director, which validates, plans and applies it.
//
// A service is named in a path by its URL, escaped as one path segment
// (tcp:%2F%2F192.0.2.1:80), or by its name:
//
//	curl --unix-socket /run/shunt/shuntd.sock http://shunt/v1/services
//
// Start reading at routes.go for the server and at Client for the caller.
package api
