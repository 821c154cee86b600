package directortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
)

// Headers of every answer of a Web.
const (
	HeaderServer = "X-Server" // the name of the server that answered
	HeaderClient = "X-Client" // the client's address and port as the server saw it
	HeaderLocal  = "X-Local"  // the address and port the client reached
)

// Web is the HTTP service of one real server. GET /bytes/N answers N bytes,
// POST /upload answers how many bytes came, any other path answers the server's
// name and a newline.
type Web struct {
	name   string
	server http.Server
	done   chan error
	served atomic.Uint64
}

// ServeHTTP starts an HTTP server on the port on all addresses of every real
// server, the virtual ones included. They end with the lab.
func (l *Lab) ServeHTTP(port uint16) ([]*Web, error) {
	var webs []*Web
	for _, s := range l.Servers {
		web, err := s.StartWeb(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
		if err != nil {
			return nil, err
		}
		l.closeLater(web)
		webs = append(webs, web)
	}
	return webs, nil
}

// StartWeb starts an HTTP server in the namespace that names itself after it.
// The caller closes it.
func (n *Namespace) StartWeb(addr netip.AddrPort) (*Web, error) {
	listener, err := n.Listen(context.Background(), addr)
	if err != nil {
		return nil, fmt.Errorf("start web server in %s: %w", n.Name, err)
	}
	w := &Web{name: n.Name, done: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("/", w.hello)
	mux.HandleFunc("GET /bytes/{count}", w.bytes)
	mux.HandleFunc("POST /upload", w.upload)
	w.server.Handler = w.label(mux)
	go func() { w.done <- w.server.Serve(listener) }()
	return w, nil
}

// Name returns the server's name, as in its answers.
func (w *Web) Name() string { return w.name }

// Served returns the number of requests that came since the start.
func (w *Web) Served() uint64 { return w.served.Load() }

// Close ends the server and its connections.
func (w *Web) Close() error {
	err := w.server.Close()
	if serveErr := <-w.done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	w.done <- http.ErrServerClosed // for the next Close
	return err
}

func (w *Web) label(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.served.Add(1)
		rw.Header().Set(HeaderServer, w.name)
		rw.Header().Set(HeaderClient, unmapped(r.RemoteAddr))
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			rw.Header().Set(HeaderLocal, unmapped(local.String()))
		}
		next.ServeHTTP(rw, r)
	})
}

func (w *Web) hello(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, w.name) }

func (w *Web) bytes(rw http.ResponseWriter, r *http.Request) {
	count, err := strconv.ParseInt(r.PathValue("count"), 10, 64)
	if err != nil || count < 0 {
		http.Error(rw, "want /bytes/N", http.StatusBadRequest)
		return
	}
	rw.Header().Set("Content-Length", strconv.FormatInt(count, 10))
	rw.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.CopyN(rw, Pattern(), count) // the client sees a short body
}

func (w *Web) upload(rw http.ResponseWriter, r *http.Request) {
	count, err := Pattern().Compare(r.Body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(rw, count)
}

// unmapped writes an address of a dual-stack socket the usual way.
func unmapped(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}
