package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// serversEach is how many servers a service has.
const serversEach = 10

// startLimit is how long the daemon may take until it is ready.
const startLimit = time.Minute

// probe is the service whose packets are looked at. Its servers have weight 0,
// so that the answer to a packet tells of a change.
const (
	probe        = "probe"
	probeServer  = "10.2.0.11:9000" // to be given a weight
	addedServer  = "10.2.0.12:9001" // to be added
	probeAddress = "192.0.2.10:53"
)

// scene is a lab with a daemon that has all services.
type scene struct {
	options Options
	folder  string // of the binaries, the configuration, and each daemon's folder
	lab     *directortest.Lab
	file    string // the configuration

	// Of the daemon that runs; daemons are numbered.
	number  int
	process *directortest.Cmd
	log     *syncBuffer
	client  *api.Client
}

func newScene(ctx context.Context, folder string, o Options) (*scene, error) {
	s := &scene{options: o, folder: folder, file: filepath.Join(folder, "many.yaml")}
	if err := os.WriteFile(s.file, []byte(configuration(o.Services)), 0o600); err != nil {
		return nil, err
	}
	var err error
	if s.lab, err = directortest.NewLab(directortest.Topology{Shape: directortest.OneArmed, Servers: 2}); err != nil {
		return nil, err
	}
	for _, port := range []uint16{9000, 9001} {
		if _, err := s.lab.ServeUDP(port); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// configuration has the probe and as many other services as make up the number.
// The servers' addresses are two, which answer: neighbours are not what is
// measured.
func configuration(services int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "services:\n  - name: %s\n    listen: udp://%s\n    scheduler: wrr\n    vip: external\n    method: nat\n    servers:\n", probe, probeAddress)
	for k := range serversEach {
		fmt.Fprintf(&b, "      - {address: 10.2.0.11:%d, weight: 0}\n", 9000+k)
	}
	for i := range services - 1 {
		fmt.Fprintf(&b, "  - name: s%d\n    listen: tcp://192.0.2.%d:%d\n    scheduler: wrr\n    vip: external\n    method: nat\n    servers:\n", i, 1+i%250, 1000+i/250)
		for k := range serversEach {
			fmt.Fprintf(&b, "      - {address: 10.2.0.%d:%d, weight: %d}\n", 11+k%2, 8000+k/2, 1+k)
		}
	}
	return b.String()
}

func (s *scene) path(name string) string {
	return filepath.Join(s.folder, fmt.Sprintf("%d-%s", s.number, name))
}

func (s *scene) socket() string { return s.path("socket") }

func (s *scene) pins() string {
	return filepath.Join("/sys/fs/bpf", fmt.Sprintf("%s-%d", filepath.Base(s.folder), s.number))
}

// start starts a daemon without services; its settings are the defaults.
func (s *scene) start(ctx context.Context) error {
	s.number++
	s.log = &syncBuffer{}
	s.process = s.lab.Director.Command(ctx, filepath.Join(s.folder, "shuntd"),
		"--socket", s.socket(), "--pin-dir", s.pins(), "--state", s.path("state"), "--interface", s.lab.DirectorLinks[0])
	s.process.Stdout, s.process.Stderr = s.log, s.log
	if err := s.process.Start(); err != nil {
		return err
	}
	s.client = api.NewSocketClient(s.socket())
	deadline := time.Now().Add(startLimit)
	for {
		status, err := s.client.Status(ctx)
		if err == nil && status.Ready {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon is not ready after %s: %w", startLimit, err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// end takes the daemon and all it has in the kernel away.
func (s *scene) end(ctx context.Context) error {
	if s.process == nil {
		return nil
	}
	err := s.client.Detach(ctx)
	s.client.Close()
	if err != nil { // it may have died: what is pinned must go all the same
		_ = s.process.Process.Kill()
	}
	_ = s.process.Wait()
	s.process = nil
	if err != nil {
		err = errors.Join(err, s.lab.Director.Command(ctx, filepath.Join(s.folder, "shuntd"), "detach", "--pin-dir", s.pins()).Run())
	}
	return err
}

func (s *scene) close() error {
	return errors.Join(s.end(context.Background()), s.lab.Close())
}

// shunt runs the CLI and returns how long it took from its start to its end.
func (s *scene) shunt(ctx context.Context, args ...string) (time.Duration, error) {
	cmd := s.lab.Director.Command(ctx, filepath.Join(s.folder, "shunt"), append([]string{"--socket", s.socket()}, args...)...)
	begin := time.Now()
	_, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("shunt %s: %w", strings.Join(args, " "), err)
	}
	return time.Since(begin), err
}

// dial opens a socket of the client's to the probe, with a port of its own: its
// packets are no old connection's.
func (s *scene) dial(ctx context.Context) (net.Conn, error) {
	return s.lab.Client.Dial(ctx, "udp", netip.AddrPort{}, netip.MustParseAddrPort(probeAddress))
}

// tail is the end of the daemon's log.
func (s *scene) tail() string {
	if s.log == nil {
		return ""
	}
	text := s.log.String()
	return text[max(0, len(text)-2000):]
}

// pause sleeps unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// syncBuffer is a buffer that a process writes while it is read.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write adds to the buffer.
func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String returns what was written.
func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
