package ipvsadm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// daemon is a Director with its API over a data plane, in this process.
type daemon struct {
	t        testing.TB
	socket   string
	director *director.Director
	// meanwhile is called where a program has read what it will change, before it
	// does; nil: nothing happens.
	meanwhile func()
	// folder and patience are the programs' options.
	folder   string
	patience time.Duration
}

// serve runs a daemon of the data plane until the end of the test.
func serve(t testing.TB, dp director.Dataplane) *daemon {
	t.Helper()
	d := &daemon{t: t, socket: filepath.Join(t.TempDir(), "shuntd.sock")}
	log := slog.New(slog.DiscardHandler)
	d.director = director.New(dp, &directortest.Store{}, director.Options{Log: log})
	if err := d.director.Start(t.Context(), director.State{}, director.Request{Who: "shuntd"}); err != nil {
		t.Fatal(err)
	}
	listener, err := api.Listen(d.socket, api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	handler := api.NewHandler(d.director, api.Options{
		Version: "1.2.3", Dataplane: dp.Features().Plane, Started: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := handler.Run(ctx, listener); err != nil {
			t.Errorf("the API: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return d
}

// result is what a program left.
type result = guest.Result

// run runs a program of ipvsadm's with the arguments, and the input if there is
// one.
func (d *daemon) run(program, input string, args ...string) result {
	var out, errs bytes.Buffer
	status := Run(context.Background(), Options{
		Program: program, Args: args, In: strings.NewReader(input), Out: &out, Err: &errs, Names: language.System{},
		Folder: d.folder, Patience: d.patience,
		Connect: func() (*api.Client, error) {
			if d.meanwhile != nil {
				return api.NewSocketClient(d.between()), nil
			}
			return api.NewSocketClient(d.socket), nil
		},
	})
	return result{Out: out.String(), Err: errs.String(), Status: status}
}

// ipvsadm runs the program of the name with the words of the line.
func (d *daemon) ipvsadm(line string) result { return d.run(program, "", strings.Fields(line)...) }

// between returns a socket that leads to the daemon's, with what happens meanwhile
// between the requests that read and those that write.
func (d *daemon) between() string {
	d.t.Helper()
	socket := filepath.Join(d.t.TempDir(), "between.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		d.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "shunt"
			if r.In.Method == http.MethodPut {
				d.meanwhile()
			}
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		}},
	}
	server := &http.Server{Handler: proxy}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.t.Errorf("the proxy: %v", err)
		}
	}()
	d.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			d.t.Error(err)
		}
		<-ended
	})
	return socket
}
