package xdp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/capture"
	"github.com/shunt-lb/shunt/director"
)

var _ director.Capturer = (*Dataplane)(nil)

// captureLook is how long a capture waits for packets before it looks at the time, and
// writes those that wait for their second record.
const captureLook = 100 * time.Millisecond

// captureBuffer is what is written at once while packets come faster than they are read.
const captureBuffer = 64 << 10

// Capture writes packets as they come and leave, or as they are dropped. Servers that a
// service gets later are not followed. There is one at a time: its program stands in
// the place of the root program.
func (d *Dataplane) Capture(ctx context.Context, request director.CaptureRequest, w io.Writer) (report director.CaptureReport, err error) {
	opts, names, err := d.captureOptions(ctx, request)
	if err != nil {
		return report, fmt.Errorf("capture packets: %w", err)
	}
	if !d.capturing.TryLock() {
		return report, fmt.Errorf("capture packets: %w: another capture, or another look at drops with their packets, is under way", director.ErrBusy)
	}
	defer d.capturing.Unlock()
	if request.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, request.Duration)
		defer cancel()
	}
	var session *capture.Session
	if err := d.use(func() (err error) { session, err = capture.Open(d.plane, opts); return err }); err != nil {
		return report, fmt.Errorf("capture packets: %w", err)
	}
	defer func() { err = errors.Join(err, d.use(session.Close)) }()
	buffer := bufio.NewWriterSize(w, captureBuffer)
	file, err := newCaptureFile(buffer, names, opts.Snaplen)
	if err == nil {
		err = buffer.Flush() // the reader learns that it has begun
	}
	if err != nil {
		return report, err
	}
	if err := d.copyPackets(ctx, session, file, buffer, request.Count); err != nil {
		return report, err
	}
	if err := file.flush(session); err != nil {
		return report, err
	}
	report.Written = file.written
	if report.Limited, report.Lost, err = session.Missing(); err != nil {
		return report, err
	}
	return report, errors.Join(file.end(report), buffer.Flush())
}

// copyPackets writes what the session shows until the context ends, or the data plane is
// closed, or as many records were written.
func (d *Dataplane) copyPackets(ctx context.Context, session *capture.Session, file *captureFile, buffer *bufio.Writer, records uint64) error {
	extended := time.Now()
	for ctx.Err() == nil && d.lifetime.Err() == nil {
		if now := time.Now(); now.Sub(extended) >= capture.Lasts/3 {
			if err := d.use(session.Extend); err != nil {
				return err
			}
			extended = now
		}
		session.SetDeadline(time.Now().Add(captureLook))
		var p capture.Packet
		err := session.Read(&p)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err := errors.Join(file.flush(session), buffer.Flush()); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			err = file.take(session, &p)
		}
		if err == nil && session.IsEmpty() {
			err = buffer.Flush()
		}
		if err != nil {
			return err
		}
		if records > 0 && file.written+uint64(len(file.waiting)) >= records {
			return nil
		}
	}
	return nil
}

// captureOptions says which packets are meant, by indices, and what they are called.
func (d *Dataplane) captureOptions(ctx context.Context, request director.CaptureRequest) (opts capture.Options, names captureNames, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return opts, names, err
	}
	names = captureNames{services: map[uint32]string{}, interfaces: map[uint32]string{}, macs: map[[6]byte]uint32{}}
	all := interfaceNames{d: d, known: names.interfaces}
	for i := range d.interfaces {
		names.add(all.of(uint32(d.interfaces[i].index)), uint32(d.interfaces[i].index), d)
	}
	for _, svc := range d.model.services {
		names.services[svc.index] = svc.key.String()
		if svc.name != "" {
			names.services[svc.index] = svc.name
		}
	}
	opts = capture.Options{Snaplen: request.Snaplen, Rate: request.Rate, All: len(request.Services) == 0}
	if opts.Rate == 0 {
		opts.Rate = director.DefaultCaptureRate
	}
	if request.Rate < 0 || request.Rate > director.MaxCaptureRate || request.Snaplen < 0 || request.Snaplen > director.MaxCaptureSnaplen {
		return opts, names, fmt.Errorf("%d octets of %d packets a second: %w: want up to %d of up to %d", request.Snaplen, request.Rate, director.ErrInvalid, director.MaxCaptureSnaplen, director.MaxCaptureRate)
	}
	if request.Before {
		opts.Points |= capture.Before
	}
	if request.After {
		opts.Points |= capture.After
	}
	for _, key := range request.Services {
		svc, err := d.model.live(key)
		if err != nil {
			return opts, names, fmt.Errorf("%s: %w", key, err)
		}
		d.selectService(&opts, svc)
	}
	if request.Drops {
		return opts, names, d.selectDrops(&opts, request)
	}
	return opts, names, nil
}

// selectService adds the packets of the service, and those of its servers to its clients.
func (d *Dataplane) selectService(opts *capture.Options, svc *service) {
	opts.Service = svc.index
	protocol := uint8(svc.key.Protocol)
	if first, last := svc.key.Ports(); svc.key.IsWide() {
		opts.Ranges = append(opts.Ranges, capture.Range{Prefix: svc.key.Prefix(), First: first, Last: last, Protocol: protocol, Service: svc.index})
	} else {
		opts.Keys = append(opts.Keys, capture.Key{Address: svc.key.Address, Protocol: protocol, Side: capture.Destination, Service: svc.index})
	}
	for address := range svc.members {
		opts.Keys = append(opts.Keys, capture.Key{Address: address, Protocol: protocol, Side: capture.Source, Service: svc.index})
	}
}

// selectDrops makes opts those of drops alone.
func (d *Dataplane) selectDrops(opts *capture.Options, request director.CaptureRequest) error {
	*opts = capture.Options{Points: capture.Dropped, Snaplen: opts.Snaplen, Rate: opts.Rate, Service: opts.Service}
	if len(request.Services) > 1 {
		return fmt.Errorf("drops of %d services: %w: want one or all", len(request.Services), director.ErrInvalid)
	}
	if request.Interface != "" {
		link, err := d.links.LinkByName(request.Interface)
		if err != nil {
			return fmt.Errorf("interface %q: %w: there is none of that name here", request.Interface, director.ErrNotFound)
		}
		opts.Interface = uint32(link.Attrs().Index)
	}
	if request.Reason == "" {
		return nil
	}
	for number, info := range bpf.AllEvents() {
		if info.Name == request.Reason {
			opts.Event = number
			return nil
		}
	}
	return fmt.Errorf("reason %q: %w: `shunt drops --reasons` lists them", request.Reason, director.ErrNotFound)
}

// captureNames are what numbers in records are called.
type captureNames struct {
	services   map[uint32]string
	interfaces map[uint32]string
	// macs are the addresses that one interface alone has: by them is known by which
	// one a packet leaves that is redirected.
	macs map[[6]byte]uint32
}

func (n *captureNames) add(name string, index uint32, d *Dataplane) {
	n.interfaces[index] = name
	link, err := d.links.LinkByIndex(int(index))
	if err != nil || len(link.Attrs().HardwareAddr) != 6 {
		return
	}
	address := [6]byte(link.Attrs().HardwareAddr)
	if _, taken := n.macs[address]; taken {
		index = 0
	}
	n.macs[address] = index
}

// interfaceOf names an interface; of one that was not there at the beginning, its number.
func (n *captureNames) interfaceOf(index uint32) string {
	if name, ok := n.interfaces[index]; ok {
		return name
	}
	return fmt.Sprintf("#%d", index)
}
