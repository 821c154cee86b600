package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
)

// Point is where on a packet's way it is shown.
type Point uint8

// The points; Options.Points joins those before and after. Dropped stands alone.
const (
	Before  = Point(kernelCapturePointPOINT_BEFORE)  // as it came
	After   = Point(kernelCapturePointPOINT_AFTER)   // as the fast path leaves it, whatever becomes of it
	Dropped = Point(kernelCapturePointPOINT_DROPPED) // as it was when it was dropped, or answered
)

// Options say what is to be shown. The zero value of a field is documented with it.
type Options struct {
	Points Point // 0: Before and After
	// All is every packet, not those that Keys and Ranges choose alone.
	All    bool
	Keys   []Key
	Ranges []Range // at most MaxRanges
	// Event, Service and Interface choose among what Dropped shows; 0: any.
	Event     bpf.KernelEvent
	Service   uint32
	Interface uint32
	// Snaplen is how many octets of a packet are shown at most; 0: MaxSnaplen.
	Snaplen int
	// Rate is how many packets a second are shown at most, of Dropped those of each
	// reason, service and interface; 0: no limit.
	Rate int
	// Buffer is the memory for what has not been read, in octets; 0: 1 MiB.
	Buffer int
}

// The greatest values of Options.
const (
	MaxRanges  = int(kernelCaptureShapeCAPTURE_RANGES)
	MaxKeys    = int(kernelCaptureShapeCAPTURE_KEYS)
	MaxSnaplen = int(kernelCaptureShapeCAPTURE_OCTETS)
)

func (o Options) withDefaults() Options {
	if o.Points == 0 {
		o.Points = Before | After
	}
	if o.Snaplen <= 0 || o.Snaplen > MaxSnaplen {
		o.Snaplen = MaxSnaplen
	}
	if o.Buffer <= 0 {
		o.Buffer = 1 << 20
	}
	// Kernel: kernel/bpf/ringbuf.c, ringbuf_map_alloc: a power of two, in whole pages.
	o.Buffer = 1 << bits.Len(uint(max(o.Buffer, os.Getpagesize())-1))
	return o
}

// Packet is one that is shown.
type Packet struct {
	// Came is the same of a packet's two records, and of no other packet's on its CPU.
	Came time.Time
	Time time.Time
	// Length is the frame's, Data what is shown of it.
	Length    int
	Data      []byte // overwritten by the next Read
	Interface uint32 // index of the one that it came by
	Service   uint32 // index; 0: none
	Point     Point
	Action    uint32 // XDP action (kernel: include/uapi/linux/bpf.h, enum xdp_action), but for Before
	// Drop says how it ended here; nil if it did not.
	Drop *bpf.Drop
}

// Session shows packets until Close. Its methods are for one goroutine, but for Close.
type Session struct {
	plane   *bpf.Plane
	maps    *ebpf.Collection
	watcher *ebpf.Program
	ring    *ringbuf.Reader
	record  ringbuf.Record
	started time.Time // when the monotonic clock was 0
}

// Lasts is how long packets are shown after Open and each Extend: as much longer as
// that may a process live that has died.
const Lasts = 3 * time.Second

// ErrNoJIT says that the kernel has no JIT compiler for BPF, or it is off.
var ErrNoJIT = errors.New("capturing takes the kernel's JIT compiler for BPF (sysctl net.core.bpf_jit_enable)")

// Open has the plane's interfaces run the watching program. Only one Session may be open
// of a plane. Errors wrap ErrNoJIT or the kernel's errno.
func Open(plane *bpf.Plane, opts Options) (_ *Session, err error) {
	opts = opts.withDefaults()
	if len(opts.Ranges) > MaxRanges || len(opts.Keys) > MaxKeys {
		return nil, fmt.Errorf("capture by %d addresses and %d ranges: at most %d and %d", len(opts.Keys), len(opts.Ranges), MaxKeys, MaxRanges)
	}
	s := &Session{plane: plane}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.started, err = bootTime(); err != nil {
		return nil, err
	}
	if err := s.load(opts); err != nil {
		return nil, err
	}
	if err := s.choose(opts); err != nil {
		return nil, err
	}
	if s.ring, err = ringbuf.NewReader(s.maps.Maps["capture_records"]); err != nil {
		return nil, fmt.Errorf("read what is captured: %w", err)
	}
	s.watcher = s.maps.Programs["shunt_watched"]
	return s, s.Extend()
}

func (s *Session) load(opts Options) error {
	spec, err := loadKernel()
	if err != nil {
		return fmt.Errorf("read the programs in this binary: %w", err)
	}
	if err := configure(spec, opts); err != nil {
		return err
	}
	given := map[string]*ebpf.Map{"scratch": s.plane.Scratch, "slots": s.plane.Slots, "watched_until": s.plane.WatchedUntil}
	for name, m := range given {
		// As large as they are; their values are read as the fast path's.
		spec.Maps[name].MaxEntries, spec.Maps[name].ValueSize, spec.Maps[name].Value = m.MaxEntries(), m.ValueSize(), nil
	}
	s.maps, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: given})
	var verifier *ebpf.VerifierError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &verifier) && strings.Contains(strings.Join(verifier.Log, "\n"), "non-JITed"):
		// Kernel: kernel/bpf/verifier.c, fixup_call_args, "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls".
		return fmt.Errorf("load the programs of a capture: %w", ErrNoJIT)
	default:
		return fmt.Errorf("load the programs of a capture: %w", err)
	}
}

// configure sets the constants of the programs and the sizes of their maps.
func configure(spec *ebpf.CollectionSpec, opts Options) error {
	constants := map[string]any{
		"takes_all": opts.All, "points": uint8(opts.Points), "ranges_used": uint32(len(opts.Ranges)), "snaplen": uint32(opts.Snaplen),
		"note_offset": uint32(unsafe.Offsetof(bpf.KernelSlow{}.Drop)),
		"only_event":  uint32(opts.Event), "only_service": opts.Service, "only_interface": opts.Interface,
	}
	if opts.Rate > 0 {
		cost := max(uint64(time.Second)/uint64(opts.Rate), 1)
		constants["cost"], constants["burst"] = cost, uint64(time.Second)-min(cost, uint64(time.Second))
	}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	spec.Maps["capture_records"].MaxEntries = uint32(opts.Buffer)
	spec.Maps["capture_keys"].MaxEntries = uint32(max(1, 2*len(opts.Keys)))
	return nil
}

// Extend has packets be shown for Lasts from now. It is to be called about once a second,
// and takes interfaces in that have been attached since.
func (s *Session) Extend() error {
	if err := s.plane.Watch(s.watcher, Lasts); err != nil {
		return fmt.Errorf("capture packets: %w", err)
	}
	return nil
}

// bootTime returns when the kernel's monotonic clock, bpf_ktime_get_ns's, was 0.
func bootTime() (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Time{}, fmt.Errorf("read the clock: %w", err)
	}
	return time.Now().Add(-time.Duration(now.Nano())), nil
}

// choose writes which packets are shown.
func (s *Session) choose(opts Options) error {
	for _, k := range opts.Keys {
		for _, key := range k.encode() {
			if err := s.maps.Maps["capture_keys"].Put(&key, k.Service); err != nil {
				return fmt.Errorf("choose the packets of %s: %w", k.Address, err)
			}
		}
	}
	for i, r := range opts.Ranges {
		encoded := r.encode()
		if err := s.maps.Maps["capture_ranges"].Put(uint32(i), &encoded); err != nil {
			return fmt.Errorf("choose the packets of %s: %w", r.Prefix, err)
		}
	}
	return nil
}

// SetDeadline has Read end with os.ErrDeadlineExceeded if nothing comes until then.
func (s *Session) SetDeadline(t time.Time) { s.ring.SetDeadline(t) }

// IsEmpty reports whether there is nothing to be read at this moment.
func (s *Session) IsEmpty() bool { return s.ring.AvailableBytes() == 0 }

// Read waits for the next packet. The error is os.ErrClosed after Close.
func (s *Session) Read(p *Packet) error {
	if err := s.ring.ReadInto(&s.record); err != nil {
		return fmt.Errorf("read what is captured: %w", err)
	}
	return s.decode(s.record.RawSample, p)
}

func (s *Session) decode(sample []byte, p *Packet) error {
	var r kernelCaptureRecord
	size := binary.Size(&r)
	if len(sample) < size {
		return fmt.Errorf("read what is captured: a record of %d octets, want %d at least", len(sample), size)
	}
	if _, err := binary.Decode(sample, binary.NativeEndian, &r); err != nil {
		return fmt.Errorf("read what is captured: %w", err)
	}
	if len(sample)-size < int(r.Captured) {
		return fmt.Errorf("read what is captured: %d octets of a packet, want %d", len(sample)-size, r.Captured)
	}
	*p = Packet{
		Came: s.started.Add(time.Duration(r.Came)), Time: s.started.Add(time.Duration(r.Time)),
		Length: int(r.Length), Data: sample[size : size+int(r.Captured)],
		Interface: r.Ifindex, Service: r.Service, Point: Point(r.Point), Action: r.Action,
	}
	if r.Drop != 0 {
		drop := bpf.DecodeDrop(r.Drop)
		p.Drop = &drop
	}
	return nil
}

// Missing returns how many packets were not shown: those beyond the rate, and records
// for which there was no room, as Read was not called in time.
func (s *Session) Missing() (limited, lost uint64, err error) {
	var perCPU []kernelCaptureMissing
	if err := s.maps.Maps["capture_losses"].Lookup(uint32(0), &perCPU); err != nil {
		return 0, 0, fmt.Errorf("read what was not captured: %w", err)
	}
	for _, m := range perCPU {
		limited += m.Limited
		lost += m.Lost
	}
	return limited, lost, nil
}

// Close has the interfaces run the fast path as before. Read ends.
func (s *Session) Close() error {
	var errs []error
	if s.watcher != nil {
		errs = append(errs, s.plane.Unwatch())
	}
	if s.ring != nil {
		errs = append(errs, s.ring.Close())
	}
	if s.maps != nil {
		s.maps.Close()
	}
	return errors.Join(errs...)
}
