package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/shunt-lb/shunt/bpf/capture"
)

// What is written, gopacket reads, whatever the lengths are.
func TestWriterIsReadByGopacket(t *testing.T) {
	var file bytes.Buffer
	w, err := capture.NewWriter(&file, "a test")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []capture.Block
	for i, name := range []string{"eth0", "bond0.17"} {
		if id, err := w.AddInterface(name, 1<<14); err != nil || id != i {
			t.Fatal(id, err)
		}
	}
	at := time.Unix(1_790_000_000, 123_456_789)
	drop := uint32(1)
	for n := range 70 {
		b := capture.Block{Interface: n % 2, Time: at.Add(time.Duration(n)), Length: n + n%3, Data: bytes.Repeat([]byte{byte(n)}, n), Comment: string(bytes.Repeat([]byte{'c'}, n%9)), ID: uint64(n)}
		if n%4 == 1 {
			b.Missed, b.Action = uint64(n), &drop
		}
		blocks = append(blocks, b)
		if err := w.Write(&b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteStatistics(1, at, 35, 4); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(file.Bytes()), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.SectionInfo().Application; got != "a test" || r.LinkType() != layers.LinkTypeEthernet {
		t.Errorf("application %q, link type %s", got, r.LinkType())
	}
	var got []capture.Block
	for {
		data, ci, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b := capture.Block{Interface: ci.InterfaceIndex, Time: ci.Timestamp, Length: ci.Length, Data: data, ID: *options.PacketID}
		if len(options.Comments) > 0 {
			b.Comment = options.Comments[0]
		}
		if options.DropCount != nil {
			b.Missed = *options.DropCount
		}
		if len(options.Verdicts) == 1 {
			action := uint32(binary.LittleEndian.Uint64(options.Verdicts[0].Data))
			b.Action = &action
		}
		got = append(got, b)
	}
	if diff := cmp.Diff(blocks, got); diff != "" {
		t.Errorf("blocks (-written +read):\n%s", diff)
	}
	for i, name := range []string{"eth0", "bond0.17"} {
		info, err := r.Interface(i)
		if err != nil || info.Name != name {
			t.Errorf("interface %d: %q %v", i, info.Name, err)
		}
	}
	if info, _ := r.Interface(1); info.Statistics.PacketsReceived != 35 || info.Statistics.PacketsDropped != 4 {
		t.Errorf("statistics %+v", info.Statistics)
	}
	if err := w.Write(&capture.Block{Interface: 2}); err == nil {
		t.Error("an interface that there is not")
	}
}
