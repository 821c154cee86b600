package bpf

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// News is what the program tells of a connection: that it has begun, that it has
// shown its client to be real, that its entry is gone.
type News struct {
	Kind KernelNewsKind
	// Slot is the forward entry as it was at that moment, but for where it lay; Seen is
	// the tick of the news, Hop 0 but of full NAT.
	Slot Slot
	// In and Out are what it has carried, of news of its end, where
	// Limits.CountConnections is set.
	In, Out KernelSlotTraffic
	// Pending is whether there is more to be read already.
	Pending bool
}

// NewsReader reads the program's news of connections, which it tells while
// settings.watching is not 0. There must be one at a time. Read is for one
// goroutine; Close is safe beside it.
type NewsReader struct {
	ring   *ringbuf.Reader
	events *ebpf.Map
	record ringbuf.Record
}

// OpenNews begins to read; news from before are left out. The caller closes the reader.
func (p *Plane) OpenNews() (*NewsReader, error) {
	ring, err := ringbuf.NewReader(p.KernelMaps.News)
	if err != nil {
		return nil, fmt.Errorf("read the news of connections: %w", err)
	}
	r := &NewsReader{ring: ring, events: p.KernelMaps.Events}
	ring.SetDeadline(time.Unix(1, 0)) // long gone: what is there is read, and no more awaited
	for err == nil {
		err = ring.ReadInto(&r.record)
	}
	ring.SetDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return r, nil
	}
	ring.Close()
	return nil, fmt.Errorf("read the news of connections: %w", err)
}

// Read waits for the next one. The error is os.ErrClosed after Close.
func (r *NewsReader) Read() (News, error) {
	if err := r.ring.ReadInto(&r.record); err != nil {
		return News{}, fmt.Errorf("read the news of connections: %w", err)
	}
	return decodeNews(r.record.RawSample, r.record.Remaining > 0)
}

// Lost is how many news the program could not tell since it was loaded, because the
// ring was full.
func (r *NewsReader) Lost() (uint64, error) {
	var perCPU []uint64
	if err := r.events.Lookup(uint32(KernelEventEVENT_NOTE_NEWS_LOST), &perCPU); err != nil {
		return 0, fmt.Errorf("read the count of lost news: %w", err)
	}
	var lost uint64
	for _, n := range perCPU {
		lost += n
	}
	return lost, nil
}

// Close ends Read.
func (r *NewsReader) Close() error { return r.ring.Close() }

func decodeNews(sample []byte, pending bool) (News, error) {
	var k KernelConnectionNews
	if len(sample) < int(unsafe.Sizeof(k)) {
		return News{}, fmt.Errorf("decode the news of a connection: %d bytes, want %d", len(sample), unsafe.Sizeof(k))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&k)), unsafe.Sizeof(k)), sample)
	return News{
		Kind: KernelNewsKind(k.Kind), Pending: pending,
		Slot: Slot{
			Source: k.Source, Destination: k.Destination, ID: k.Id, Recipe: k.Recipe, Seen: k.Tick, Hop: k.Local, V6: k.Family == 6,
		},
		In:  KernelSlotTraffic{Packets: k.InPackets, Bytes: k.InBytes},
		Out: KernelSlotTraffic{Packets: k.OutPackets, Bytes: k.OutBytes},
	}, nil
}
