package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
)

// The rounds of what takes long, as shares of Options.Rounds: at least 3.
func (s *scene) fewer(share int) int { return max(3, s.options.Rounds/share) }

// apply measures a file that is applied to a daemon that has nothing. The last
// daemon is what the other rows are measured with.
func (s *scene) apply(ctx context.Context) ([]Row, error) {
	var took []float64
	for i := range s.fewer(5) {
		s.options.Log("control plane: apply, round %d", i+1)
		if err := s.end(ctx); err != nil {
			return nil, err
		}
		if err := s.start(ctx); err != nil {
			return nil, err
		}
		d, err := s.shunt(ctx, "apply", "-f", s.file)
		if err != nil {
			return nil, err
		}
		took = append(took, d.Seconds())
	}
	return []Row{s.row("apply", "s", took)}, nil
}

// edits measures a new weight, and additions a new server: one command, and the
// first packet that shows it.
func (s *scene) edits(ctx context.Context) ([]Row, error) {
	s.options.Log("control plane: edits")
	return s.changes(ctx, "edit",
		[]string{"server", "edit", probe, probeServer, "--weight", "1"},
		[]string{"server", "edit", probe, probeServer, "--weight", "0"})
}

func (s *scene) additions(ctx context.Context) ([]Row, error) {
	s.options.Log("control plane: additions")
	return s.changes(ctx, "add",
		[]string{"server", "add", probe, addedServer, "--method", "nat"},
		[]string{"server", "remove", probe, addedServer, "--yes"})
}

// changes runs a command after which packets are answered, and its inverse.
func (s *scene) changes(ctx context.Context, name string, do, undo []string) ([]Row, error) {
	var returned, packet []float64
	for range s.options.Rounds {
		p, err := s.startProbing(ctx)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		took, err := s.shunt(ctx, do...)
		if err == nil {
			var answered time.Time
			if answered, err = p.wait(ctx); err == nil {
				returned, packet = append(returned, took.Seconds()), append(packet, answered.Sub(begin).Seconds())
				_, err = s.shunt(ctx, undo...)
			}
		}
		p.stop()
		if err != nil {
			return nil, err
		}
	}
	return []Row{s.row(name+"/returned", "s", returned), s.row(name+"/packet", "s", packet)}, nil
}

// probing sends a packet to the probe every millisecond until one is answered.
type probing struct {
	conn     net.Conn
	answered chan time.Time // of 1: the first answer
	done     chan struct{}  // closed when nothing is sent any more
}

const (
	probeEvery = time.Millisecond
	probeLimit = 10 * time.Second
)

func (s *scene) startProbing(ctx context.Context) (*probing, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	p := &probing{conn: conn, answered: make(chan time.Time, 1), done: make(chan struct{})}
	query := make([]byte, 12) // what the lab's servers answer
	binary.BigEndian.PutUint16(query, uint16(s.number))
	go func() {
		defer close(p.done)
		for {
			// Refusals are what comes before the change.
			if _, err := conn.Write(query); errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(probeEvery)
		}
	}()
	go func() {
		answer := make([]byte, 512)
		for {
			_, err := conn.Read(answer)
			if err == nil {
				p.answered <- time.Now()
				return
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	return p, nil
}

func (p *probing) wait(ctx context.Context) (time.Time, error) {
	timer := time.NewTimer(probeLimit)
	defer timer.Stop()
	select {
	case at := <-p.answered:
		return at, nil
	case <-timer.C:
		return time.Time{}, fmt.Errorf("no packet was answered in %s", probeLimit)
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

func (p *probing) stop() {
	_ = p.conn.Close()
	<-p.done
}

// repairs measures how long the kernel stays as somebody else made it: the probe
// is cleared at instants of all kinds within the daemon's period.
func (s *scene) repairs(ctx context.Context) ([]Row, error) {
	services, err := ebpf.LoadPinnedMap(filepath.Join(s.pins(), "services"), nil)
	if err != nil {
		return nil, err
	}
	defer services.Close()
	at, err := placeOf(services, netip.MustParseAddrPort(probeAddress))
	if err != nil {
		return nil, err
	}
	var took []float64
	rounds := s.fewer(2)
	for i := range rounds {
		s.options.Log("control plane: drift, round %d", i+1)
		if err := pause(ctx, time.Duration(i)*2*time.Second/time.Duration(rounds)); err != nil {
			return nil, err
		}
		var before, now bpf.KernelService
		if err := services.Lookup(at, &before); err != nil {
			return nil, err
		}
		if err := services.Put(at, &bpf.KernelService{}); err != nil {
			return nil, err
		}
		begin := time.Now()
		for now.Life != before.Life || now.Key != before.Key {
			if time.Since(begin) > probeLimit {
				return nil, fmt.Errorf("drift was not repaired in %s", probeLimit)
			}
			if err := errors.Join(pause(ctx, time.Millisecond), services.Lookup(at, &now)); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Since(begin).Seconds())
	}
	return []Row{s.row("drift", "s", took)}, nil
}

// placeOf returns the element of the services map that has the address.
func placeOf(services *ebpf.Map, addr netip.AddrPort) (uint32, error) {
	all, err := bpf.ReadArray[bpf.KernelService](services)
	if err != nil {
		return 0, err
	}
	for i, k := range all {
		if k.Life == uint8(bpf.KernelLifecycleLIFE_LIVE) && netip.AddrPortFrom(bpf.ParseAddress(k.Key.Address, false), bpf.Port(k.Key.Port)) == addr {
			return uint32(i), nil
		}
	}
	return 0, fmt.Errorf("the kernel has no service at %s", addr)
}

// scrapes measures what Prometheus waits for.
func (s *scene) scrapes(ctx context.Context) ([]Row, error) {
	s.options.Log("control plane: scrapes")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket())
	}}
	defer transport.CloseIdleConnections()
	var took []float64
	var size int64
	for range s.options.Rounds {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shunt/metrics", nil)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		answer, err := transport.RoundTrip(request)
		if err != nil {
			return nil, err
		}
		size, err = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("scrape: %s: %w", answer.Status, err)
		}
		took = append(took, time.Since(begin).Seconds())
	}
	return []Row{s.row("scrape", "s", took), s.row("scrape/size", "MiB", []float64{float64(size) / (1 << 20)})}, nil
}

// idle measures what the daemon takes while nobody asks it anything.
func (s *scene) idle(ctx context.Context) ([]Row, error) {
	s.options.Log("control plane: idle for %s", s.options.Idle)
	before, err := cpuTime(s.process.Process.Pid)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := pause(ctx, s.options.Idle); err != nil {
		return nil, err
	}
	after, err := cpuTime(s.process.Process.Pid)
	if err != nil {
		return nil, err
	}
	share := 100 * (after - before).Seconds() / time.Since(begin).Seconds()
	rss, err := resident(s.process.Process.Pid)
	return []Row{s.row("idle/cpu", "%", []float64{share}), s.row("idle/rss", "MiB", []float64{rss})}, err
}

// cpuTime is what the process has used (proc_pid_stat(5): utime and stime).
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += time.Duration(n)
	}
	return ticks * time.Second / userHZ, nil
}

// userHZ is the unit of times in /proc (kernel: USER_HZ), the same everywhere.
const userHZ = 100

// resident is the memory that the process occupies, in MiB.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm has %d fields", pid, len(fields))
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return float64(pages) * float64(unix.Getpagesize()) / (1 << 20), err
}
