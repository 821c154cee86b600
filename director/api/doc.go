// Package api is the daemon's control interface: REST with JSON over a Unix
// socket and, if asked for, over TLS; and the client that speaks it.
//
// The interface is described in openapi.yaml, which comes first: the models,
// the server's interface and the client's requests are generated from it
// (openapi.gen.go), and the table of operations with the role each needs
// (operations.gen.go). The package owns what is between those and the Director:
// who may ask (auth.go, peer.go, tls.go), what a body may be (decode.go), the
// translation of models (convert.go), errors as problem+json (problem.go) and
// streams (sse.go). It decides nothing: every change is handed to the Director,
// which validates, plans and applies it.
//
// A service is named in a path by its URL, escaped as one path segment
// (tcp:%2F%2F192.0.2.1:80), or by its name:
//
//	curl --unix-socket /run/shunt/shuntd.sock http://shunt/v1/services
//
// Start reading at handler.go for the server and at Client for the caller.
package api
