package ipvsadm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// TestPatience holds how long a daemon is waited for that is being restarted, and
// that nothing else is.
func TestPatience(t *testing.T) {
	ending := &api.Problem{Status: http.StatusServiceUnavailable, Code: api.ProblemCodeUnfinished}
	refused := &api.Problem{Status: http.StatusConflict}
	for _, tt := range []struct {
		name   string
		errs   []error // of the attempts; the last stands for those that follow
		calls  int
		waited time.Duration
	}{
		{"there", []error{nil}, 1, 0},
		{"comes_back", []error{ending, fmt.Errorf("write: %w", unix.EPIPE), io.EOF, unix.ECONNRESET, io.ErrUnexpectedEOF, nil}, 6, 5 * again},
		{"refuses", []error{refused}, 1, 0},
		{"refuses_at_last", []error{ending, refused}, 2, again},
		{"another_error", []error{errors.New("no sense")}, 1, 0},
		{"never", []error{ending}, int(5*time.Second/again) + 1, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &session{ctx: t.Context(), options: Options{Patience: 5 * time.Second}}
				calls, began := 0, time.Now()
				err := s.patiently(func() error {
					calls++
					return tt.errs[min(calls, len(tt.errs))-1]
				})
				if want := tt.errs[len(tt.errs)-1]; err != want || calls != tt.calls || time.Since(began) != tt.waited {
					t.Errorf("%v after %d calls and %v, want %v after %d and %v", err, calls, time.Since(began), want, tt.calls, tt.waited)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		s := &session{ctx: ctx, options: Options{Patience: time.Minute}}
		if err := s.patiently(func() error { return ending }); err != ending || time.Since(began) != time.Second {
			t.Errorf("%v after %v of a context of a second", err, time.Since(began))
		}
	})
}

// faulty returns a daemon whose connection breaks: before the n-th request of the
// method reaches it, or before the answer comes back.
func (d *daemon) faulty(method string, reaches bool) *daemon {
	d.t.Helper()
	socket := filepath.Join(d.t.TempDir(), "faulty.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		d.t.Fatal(err)
	}
	broken := false
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "shunt" },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		}},
		ModifyResponse: func(answer *http.Response) error {
			if reaches && !broken && answer.Request.Method == method {
				broken = true
				return errors.New("lost")
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reaches && !broken && r.Method == method {
			broken = true
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.t.Errorf("the proxy: %v", err)
		}
	}()
	d.t.Cleanup(func() {
		_ = server.Close()
		<-ended
		if !broken {
			d.t.Error("the connection never broke")
		}
	})
	return &daemon{t: d.t, socket: socket, director: d.director, patience: time.Minute}
}

// What breaks with the daemon is asked again, and no change is made twice.
func TestBrokenConnection(t *testing.T) {
	for _, tt := range []struct {
		name, method string
		reaches      bool
		line         string
		out          string
	}{
		{"list", http.MethodGet, false, "-S -n", "-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1\n"},
		{"list_unanswered", http.MethodGet, true, "-L --timeout", "Timeout (tcp tcpfin udp): 900 120 300\n"},
		{"connections", http.MethodGet, false, "-L -n -c", "IPVS connection entries\npro expire state       source             virtual            destination\n"},
		{"sync_daemons", http.MethodGet, true, "-L --daemon", ""},
		{"zero", http.MethodPost, true, "-Z", ""},
		{"change", http.MethodPut, false, "-d -t 192.0.2.1:80 -r 10.0.0.1", ""},
		{"change_unanswered", http.MethodPut, true, "-d -t 192.0.2.1:80 -r 10.0.0.1", ""},
		{"addition_unanswered", http.MethodPut, true, "-a -t 192.0.2.1:80 -r 10.0.0.2 -m", ""},
		{"change_that_reads_anew", http.MethodGet, true, "-a -t 192.0.2.1:80 -r 10.0.0.2 -m", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := fake(t, director.PlaneIPVS)
			d.script("-A -t 192.0.2.1:80", "-a -t 192.0.2.1:80 -r 10.0.0.1 -m")
			before := d.director.Head().Number
			if got := d.faulty(tt.method, tt.reaches).ipvsadm(tt.line); got != (result{Out: tt.out}) {
				t.Errorf("%+v, want %q", got, tt.out)
			}
			changed := uint64(0)
			if tt.method == http.MethodPut || tt.name == "change_that_reads_anew" {
				changed = 1
			}
			if n := d.director.Head().Number - before; n != changed {
				t.Errorf("%d revisions, want %d", n, changed)
			}
		})
	}
	// Without patience it is told.
	d, _ := fake(t, director.PlaneIPVS)
	faulty := d.faulty(http.MethodGet, false)
	faulty.patience = 0
	if got := faulty.ipvsadm("-S"); got.Status == 0 || got.Err == "" {
		t.Errorf("without patience: %+v", got)
	}
}
