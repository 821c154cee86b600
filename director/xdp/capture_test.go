package xdp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// captured is a record as gopacket reads it.
type captured struct {
	Interface, Comment string
	Data               string
}

// readCapture reads a pcapng file; records of one packet must follow one another.
func readCapture(t *testing.T, file []byte) (all []captured) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		i, err := r.Interface(ci.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(ci.Timestamp); age < 0 || age > time.Minute {
			t.Errorf("a record of %s", ci.Timestamp)
		}
		all = append(all, captured{i.Name, strings.Join(options.Comments, ", "), string(data)})
	}
}

// began tells its first Write.
type began struct {
	bytes.Buffer
	mu    sync.Mutex
	once  sync.Once
	first chan struct{}
}

func (b *began) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.once.Do(func() { close(b.first) })
	return b.Buffer.Write(p)
}

// cable sends frames from the peer's end of the wire.
type cable struct {
	r            *rig
	fd, ifindex  int
	source, dest bpftest.MAC
}

func (r *rig) cable() *cable {
	r.t.Helper()
	w := &cable{r: r}
	check := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	own, err := r.peer.Netlink().LinkByName("eth0")
	check(err)
	other, err := r.ns.Netlink().LinkByName("eth0")
	check(err)
	w.ifindex = own.Attrs().Index
	copy(w.source[:], own.Attrs().HardwareAddr)
	copy(w.dest[:], other.Attrs().HardwareAddr)
	check(r.peer.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	r.t.Cleanup(func() { unix.Close(w.fd) })
	// The fast path's frames come in by NAPI only where the peer has a program of its own.
	l, err := r.peer.AttachPass("eth0")
	check(err)
	r.t.Cleanup(func() { l.Close() })
	return w
}

func (w *cable) send(p bpftest.Packet) string {
	w.r.t.Helper()
	p.Source, p.Destination = w.source, w.dest
	frame := p.Bytes()
	if err := unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.ifindex, Halen: 6}); err != nil {
		w.r.t.Fatal(err)
	}
	return string(frame)
}

// capture captures while send is run, until as many records are there.
func (r *rig) capture(request director.CaptureRequest, send func()) []byte {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	out := &began{first: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		report, err := r.Capture(ctx, request, out)
		if err == nil && (report.Written != request.Count || report.Lost != 0) {
			err = errors.New("not all was written")
		}
		done <- err
	}()
	select {
	case <-out.first:
		send()
	case err := <-done:
		r.t.Fatal(err)
	}
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
	return out.Bytes()
}

var (
	captureVIP    = netip.MustParseAddrPort("192.0.2.1:80")
	captureClient = netip.MustParseAddrPort("198.51.100.7:40000")
	captureOther  = netip.MustParseAddrPort("192.0.2.2:80")
)

// captureRig has the service web, whose server is reachable, and another one.
func captureRig(t *testing.T) *rig {
	r := newRig(t, Options{ICMPRate: 1000})
	web := director.Service{Key: director.ServiceKey{Protocol: conntrack.TCP, Address: captureVIP}, Name: "web", Scheduler: director.RoundRobin, VIP: director.VIPExternal}
	other := director.Service{Key: director.ServiceKey{Protocol: conntrack.TCP, Address: captureOther}, Scheduler: director.RoundRobin, VIP: director.VIPExternal}
	r.must(director.AddService{Service: web}, director.AddServer{Key: web.Key, Server: natServer()}, director.AddService{Service: other})
	r.eventually("a next hop", func() bool {
		stats, err := r.Stats(t.Context())
		return err == nil && stats.Services[0].Servers[0].Reachable
	})
	return r
}

// Packets of the chosen service are shown as they come and as they leave, with what has
// become of them, and others are not; tshark and gopacket read what is written.
func TestCaptureOfAService(t *testing.T) {
	r := captureRig(t)
	w := r.cable()
	request := bpftest.Packet{From: captureClient, To: captureVIP, Flags: "S", Seq: 1}
	reply := bpftest.Packet{From: netip.AddrPortFrom(reachable, 8080), To: captureClient, Flags: "SA", Seq: 9, Ack: 2}
	stray := bpftest.Packet{From: netip.MustParseAddrPort("198.51.100.8:1"), To: captureVIP, Flags: "A"}
	foreign := bpftest.Packet{From: captureClient, To: captureOther, Flags: "A"}
	key := director.ServiceKey{Protocol: conntrack.TCP, Address: captureVIP}
	var frames [3]string
	file := r.capture(director.CaptureRequest{Services: []director.ServiceKey{key}, Count: 6}, func() {
		w.send(foreign)
		for i, p := range []bpftest.Packet{request, reply, stray} {
			frames[i] = w.send(p)
		}
	})
	got := readCapture(t, file)
	var comments []string
	for i, c := range got {
		if comments = append(comments, c.Comment); c.Interface != "eth0" {
			t.Errorf("record %d is of %q", i, c.Interface)
		}
	}
	want := []string{"before; web", "after: tx; web", "before; web", "after: tx; web", "before; web", "dropped: midstream (33); web"}
	if diff := cmp.Diff(want, comments); diff != "" {
		t.Fatalf("comments (-want +got):\n%s", diff)
	}
	for i, frame := range frames {
		if got[2*i].Data != frame {
			t.Errorf("packet %d came as %x, was sent as %x", i, got[2*i].Data, frame)
		}
	}
	if to := got[1].Data[30:38]; to != string(append(reachable.AsSlice(), 0x9c, 0x40, 0x1f, 0x90)) {
		t.Errorf("the request left with %x", to)
	}
	if from := netip.AddrFrom4([4]byte([]byte(got[3].Data[26:30]))); from != captureVIP.Addr() {
		t.Errorf("the reply left from %s", from)
	}
	if got[5].Data != frames[2] {
		t.Errorf("what was dropped is not as it came")
	}
	byTshark(t, file, want)
}

// byTshark has tshark read the file: no packet may be malformed.
func byTshark(t *testing.T, file []byte, comments []string) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Log("there is no tshark to read it too")
		return
	}
	name := filepath.Join(t.TempDir(), "capture.pcapng")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tshark", "-n", "-r", name, "-T", "fields", "-e", "frame.comment", "-e", "_ws.malformed").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimRight(string(out), "\n"), "\n"); !slices.EqualFunc(got, comments, func(a, b string) bool { return strings.TrimSpace(a) == b }) {
		t.Errorf("tshark reads %q, want %q", got, comments)
	}
}

// Drops are shown by themselves, by reason and interface if these are named; and they are
// counted by service and interface.
func TestCaptureOfDrops(t *testing.T) {
	r := captureRig(t)
	w := r.cable()
	stray := bpftest.Packet{From: captureClient, To: captureVIP, Flags: "A"}
	ftp := bpftest.Packet{From: netip.AddrPortFrom(captureClient.Addr(), 20), To: captureVIP, Flags: "S"}
	none := bpftest.Packet{From: captureClient, To: captureOther, Flags: "S"}
	var frame string
	file := r.capture(director.CaptureRequest{Drops: true, Reason: "ftp-data", Interface: "eth0", Count: 1}, func() {
		w.send(stray)
		w.send(none)
		frame = w.send(ftp)
	})
	if diff := cmp.Diff([]captured{{"eth0", "dropped: ftp-data (39); web", frame}}, readCapture(t, file)); diff != "" {
		t.Errorf("of one reason (-want +got):\n%s", diff)
	}
	file = r.capture(director.CaptureRequest{Drops: true, Count: 2}, func() {
		w.send(none)
		w.send(stray)
	})
	if all := readCapture(t, file); len(all) != 2 || all[0].Comment != "answered: no-server (96); tcp://192.0.2.2:80" || all[1].Comment != "dropped: midstream (33); web" {
		t.Errorf("of all: %q", all)
	}
	drops, err := r.Drops(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts := map[director.Drop]uint64{}
	for _, d := range drops {
		n := d.Packets
		d.Packets, d.Bytes = 0, 0
		counts[d] = n
	}
	web := director.ServiceKey{Protocol: conntrack.TCP, Address: captureVIP}
	other := director.ServiceKey{Protocol: conntrack.TCP, Address: captureOther}
	want := map[director.Drop]uint64{
		{Reason: "midstream", Number: 33, Kind: director.PacketDrop, Service: web, Interface: "eth0"}:     2,
		{Reason: "ftp-data", Number: 39, Kind: director.PacketDrop, Service: web, Interface: "eth0"}:      1,
		{Reason: "no-server", Number: 96, Kind: director.PacketAnswer, Service: other, Interface: "eth0"}: 2,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
	if err := r.Zero(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	if drops, err = r.Drops(t.Context()); err != nil || len(drops) != 1 || drops[0].Service != other {
		t.Errorf("after zero: %v %v", drops, err)
	}
}

// stuck takes the first part and no more until it is let go.
type stuck struct {
	began
	goOn chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	select {
	case <-s.first:
		<-s.goOn
	default:
	}
	return s.began.Write(p)
}

// A reader that is too slow loses packets and is told how many; packets are forwarded all
// the while, and the next capture is refused until this one has ended.
func TestCaptureOfASlowReader(t *testing.T) {
	r := captureRig(t)
	w := r.cable()
	out := &stuck{began: began{first: make(chan struct{})}, goOn: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type result struct {
		director.CaptureReport
		err error
	}
	done := make(chan result, 1)
	go func() {
		report, err := r.Capture(ctx, director.CaptureRequest{Rate: director.MaxCaptureRate}, out)
		done <- result{report, err}
	}()
	<-out.first
	if _, err := r.Capture(t.Context(), director.CaptureRequest{}, io.Discard); !errors.Is(err, director.ErrBusy) {
		t.Errorf("a second capture: %v", err)
	}
	big := bpftest.Packet{From: captureClient, To: captureOther, Flags: "A", Payload: make([]byte, 1400)}
	const sent = 1000 // of two records each, beyond 1 MiB
	for range sent {
		w.send(big)
	}
	r.eventually("all were dropped", func() bool {
		drops, err := r.Drops(t.Context())
		return err == nil && len(drops) > 0 && drops[0].Packets >= sent
	})
	close(out.goOn)
	cancel()
	got := <-done
	if got.err != nil || got.Lost == 0 || got.Written+got.Lost > 2*sent+100 {
		t.Errorf("%+v of %d records", got, 2*sent)
	}
	if all := readCapture(t, out.Bytes()); uint64(len(all)) != got.Written {
		t.Errorf("%d records, %d were written", len(all), got.Written)
	}
}

// The fast path is as it was when a capture has ended, and when a daemon was killed in one.
func TestCaptureEnds(t *testing.T) {
	r := captureRig(t)
	attached := func() uint32 {
		link, err := r.ns.Netlink().LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		return link.Attrs().Xdp.ProgId
	}
	root := attached()
	out := &began{first: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.Capture(ctx, director.CaptureRequest{}, out)
		done <- err
	}()
	<-out.first
	if attached() == root {
		t.Error("nothing watches")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if attached() != root {
		t.Error("the watching program is still there")
	}
	// As a daemon leaves it that was killed: the pinned link runs the watching program.
	if err := r.plane.Watch(r.plane.ShuntMain, time.Second); err != nil {
		t.Fatal(err)
	}
	if attached() == root {
		t.Fatal("the test did not attach its program")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	info, err := r.plane.ShuntRoot.Info()
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := info.ID(); attached() != uint32(id) {
		t.Error("the next daemon did not put the root program back")
	}
	for name, request := range map[string]director.CaptureRequest{
		"of a service that is not there":  {Services: []director.ServiceKey{{Protocol: conntrack.UDP, Address: captureVIP}}},
		"for a reason that there is not":  {Drops: true, Reason: "nosuch"},
		"of an interface that is not one": {Drops: true, Interface: "nosuch"},
	} {
		if _, err := r.Capture(t.Context(), request, io.Discard); !errors.Is(err, director.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Capture(t.Context(), director.CaptureRequest{Rate: -1}, io.Discard); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("a rate below 0: %v", err)
	}
}
