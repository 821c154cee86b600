package xdp

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/capture"
	"github.com/shunt-lb/shunt/director"
)

// captureWaiting is how many packets at most wait for their second record: as many as
// CPUs have one at a time, and some that have lost theirs.
const captureWaiting = 256

// captureFile writes packets as pcapng, each one's two records one after the other.
type captureFile struct {
	*capture.Writer
	names      captureNames
	snaplen    int
	interfaces map[uint32]int // their numbers in the file
	counts     map[int]uint64
	waiting    []capture.Packet // first records
	lost       uint64           // as told
	written    uint64
}

func newCaptureFile(w io.Writer, names captureNames, snaplen int) (*captureFile, error) {
	if snaplen == 0 {
		snaplen = capture.MaxSnaplen
	}
	writer, err := capture.NewWriter(w, "shunt capture")
	return &captureFile{Writer: writer, names: names, snaplen: snaplen, interfaces: map[uint32]int{}, counts: map[int]uint64{}}, err
}

// losses tells what is missing.
type losses interface {
	Missing() (limited, lost uint64, err error)
}

// take writes the packet with the record that came before, or keeps it until the next comes.
func (f *captureFile) take(l losses, p *capture.Packet) error {
	if p.Point == capture.Before {
		kept := *p
		kept.Data = slices.Clone(p.Data)
		if f.waiting = append(f.waiting, kept); len(f.waiting) > captureWaiting {
			return f.flush(l)
		}
		return nil
	}
	for i := range f.waiting {
		if first := &f.waiting[i]; first.Came.Equal(p.Came) && first.Interface == p.Interface {
			if err := f.write(l, first); err != nil {
				return err
			}
			f.waiting = slices.Delete(f.waiting, i, i+1)
			break
		}
	}
	return f.write(l, p)
}

// flush writes the packets whose second record has not come: it was not asked for, or is lost.
func (f *captureFile) flush(l losses) error {
	for i := range f.waiting {
		if err := f.write(l, &f.waiting[i]); err != nil {
			return err
		}
	}
	f.waiting = f.waiting[:0]
	return nil
}

func (f *captureFile) write(l losses, p *capture.Packet) error {
	_, lost, err := l.Missing()
	if err != nil {
		return err
	}
	id, err := f.interfaceID(p)
	if err != nil {
		return err
	}
	b := capture.Block{Interface: id, Time: p.Time, Length: p.Length, Data: p.Data, Comment: f.comment(p), ID: uint64(p.Came.UnixNano()), Missed: lost - f.lost}
	if p.Point != capture.Before {
		b.Action = &p.Action
	}
	if b.Missed > 0 {
		b.Comment += fmt.Sprintf("; records lost before this one, the reader being too slow: %d", b.Missed)
	}
	f.lost = lost
	f.counts[id]++
	f.written++
	return f.Write(&b)
}

// interfaceID returns the number of the interface by which the packet came or leaves.
func (f *captureFile) interfaceID(p *capture.Packet) (int, error) {
	index := p.Interface
	if p.Action == xdpRedirect && p.Point == capture.After && len(p.Data) >= 12 {
		if by := f.names.macs[[6]byte(p.Data[6:12])]; by != 0 {
			index = by
		}
	}
	if id, ok := f.interfaces[index]; ok {
		return id, nil
	}
	id, err := f.AddInterface(f.names.interfaceOf(index), f.snaplen)
	f.interfaces[index] = id
	return id, err
}

// XDP actions (kernel: include/uapi/linux/bpf.h, enum xdp_action).
const xdpRedirect = 4

var actionNames = [...]string{"aborted", "drop", "pass", "tx", "redirect"}

// comment says where on its way the packet is, what has become of it, and whose it is.
func (f *captureFile) comment(p *capture.Packet) string {
	text := "before"
	if p.Point != capture.Before {
		action := fmt.Sprintf("action %d", p.Action)
		if int(p.Action) < len(actionNames) {
			action = actionNames[p.Action]
		}
		text = "after: " + action
	}
	service := p.Service
	if p.Drop != nil {
		info := bpf.Events[p.Drop.Event]
		verb := "dropped"
		if info.Kind == string(director.PacketAnswer) {
			verb = "answered"
		}
		text = fmt.Sprintf("%s: %s (%d)", verb, info.Name, p.Drop.Event)
		if p.Drop.Service != 0 {
			service = p.Drop.Service
		}
	}
	if name := f.names.services[service]; name != "" {
		text += "; " + name
	}
	return text
}

// end writes what is missing of all.
func (f *captureFile) end(report director.CaptureReport) error {
	missing := report.Limited + report.Lost
	for id := range len(f.interfaces) {
		if err := f.WriteStatistics(id, time.Now(), f.counts[id], missing); err != nil {
			return err
		}
		missing = 0 // of all interfaces together: nobody knows which had them
	}
	return nil
}
