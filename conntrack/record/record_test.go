package record_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/conntrack/record"
)

var addr = netip.MustParseAddrPort

var header = record.Header{Created: time.Unix(1700000000, 5), Director: "lb1", Version: "1.2"}

// samples has a record of every form.
func samples() []record.Record {
	return []record.Record{
		{
			Service: record.Service{Protocol: conntrack.TCP, Address: addr("192.0.2.10:80")},
			Connection: conntrack.Connection{
				Protocol: conntrack.TCP, Client: addr("203.0.113.7:40000"), Virtual: addr("192.0.2.10:80"), Server: addr("10.0.0.1:8080"),
				Method: "nat", State: conntrack.Established, Proven: true, UnderTemplate: true,
				Expires: 15 * time.Minute, Age: 3 * time.Second, Idle: time.Second,
			},
		},
		{
			Service: record.Service{Protocol: conntrack.UDP, Address: addr("[2001:db8::]:0"), Bits: 64},
			Connection: conntrack.Connection{
				Protocol: conntrack.UDP, Client: addr("[2001:db8:1::7]:53"), Virtual: addr("[2001:db8::1]:53"), Server: addr("[2001:db8:2::1]:53"),
				Method: "dr", State: conntrack.UDPNormal, Expires: -time.Second, Traffic: &conntrack.Traffic{InPackets: 1, InBytes: 2, OutPackets: 3, OutBytes: 1 << 63},
			},
		},
		{
			Service: record.Service{Mark: 7, Address: addr("0.0.0.0:0")},
			Connection: conntrack.Connection{
				Client: addr("203.0.113.0:0"), Virtual: addr("0.0.0.0:0"), Server: addr("[2001:db8::9]:0"), Method: "tunnel", State: conntrack.Assured,
				Template: true, Prefix: 24, Mark: 7, Controlled: 65535, Engine: "sip", EngineData: "a-call@host",
			},
		},
		{
			Service: record.Service{Protocol: conntrack.TCP, Address: addr("[2001:db8::1]:80")},
			Connection: conntrack.Connection{
				Protocol: conntrack.TCP, Client: addr("[2001:db8:1::7]:40000"), Virtual: addr("[2001:db8::1]:80"), Server: addr("[2001:db8:2::1]:80"),
				Method: "fullnat", Local: addr("[2001:db8:2::ff]:40000"), State: conntrack.SynRecv, Expires: time.Minute,
				Traffic: &conntrack.Traffic{InPackets: 1, InBytes: 60},
			},
		},
	}
}

func write(t testing.TB, records []record.Record) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := record.NewWriter(&b, header)
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := w.Write(&records[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read returns the records before the error, which is nil of a whole stream.
func read(b []byte) ([]record.Record, error) {
	r, err := record.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var records []record.Record
	for next, err := range r.All() {
		if err != nil {
			return records, err
		}
		kept := *next
		if kept.Connection.Traffic != nil {
			kept.Connection.Traffic = new(*kept.Connection.Traffic)
		}
		records = append(records, kept)
	}
	return records, nil
}

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// What is written is read.
func TestRoundTrip(t *testing.T) {
	for _, want := range [][]record.Record{nil, samples()} {
		b := write(t, want)
		got, err := read(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compare); diff != "" {
			t.Errorf("read (-want +got):\n%s", diff)
		}
	}
	r, err := record.NewReader(bytes.NewReader(write(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Header(); got != header {
		t.Errorf("header %+v, want %+v", got, header)
	}
}

// Any connections are read as they were written, in any number.
func TestRoundTripOfAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawRecord), 0, 2000).Draw(t, "records")
		var b bytes.Buffer
		w, err := record.NewWriter(&b, header)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if err := w.Write(&want[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := read(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compare); diff != "" {
			t.Errorf("read (-want +got):\n%s", diff)
		}
	})
}

func drawRecord(t *rapid.T) record.Record {
	size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
	endpoint := func(size int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address"))
		return netip.AddrPortFrom(a, rapid.Uint16().Draw(t, "port"))
	}
	length := rapid.Uint8Range(0, uint8(size)*8)
	span := rapid.Int64Min(0)
	r := record.Record{
		Service: record.Service{
			Protocol: conntrack.Protocol(rapid.Byte().Draw(t, "protocol")), Mark: rapid.Uint32().Draw(t, "mark"), Address: endpoint(size),
			Bits: length.Draw(t, "bits"), LastPort: rapid.Uint16().Draw(t, "last port"),
		},
		Connection: conntrack.Connection{
			Protocol: conntrack.Protocol(rapid.Byte().Draw(t, "protocol")), Client: endpoint(size), Virtual: endpoint(size),
			Server: endpoint(rapid.SampledFrom([]int{4, 16}).Draw(t, "server's size")), State: conntrack.State(rapid.Byte().Draw(t, "state")),
			Method: rapid.SampledFrom([]string{"nat", "local", "tunnel", "dr", "fullnat"}).Draw(t, "method"),
			Proven: rapid.Bool().Draw(t, "proven"), Template: rapid.Bool().Draw(t, "template"), UnderTemplate: rapid.Bool().Draw(t, "under"),
			Prefix: length.Draw(t, "prefix"), Controlled: rapid.Uint32().Draw(t, "controlled"),
			Expires: time.Duration(rapid.Int64().Draw(t, "expires")), Age: time.Duration(span.Draw(t, "age")), Idle: time.Duration(span.Draw(t, "idle")),
		},
	}
	c := &r.Connection
	if c.Template {
		c.Mark = r.Service.Mark
	} else if c.Method == "fullnat" {
		c.Local = endpoint(size)
	}
	if rapid.Bool().Draw(t, "counted") {
		n := rapid.Uint64()
		c.Traffic = &conntrack.Traffic{InPackets: n.Draw(t, "n"), InBytes: n.Draw(t, "n"), OutPackets: n.Draw(t, "n"), OutBytes: n.Draw(t, "n")}
	}
	if rapid.Bool().Draw(t, "with an engine") {
		c.Engine, c.EngineData = rapid.StringN(0, -1, 255).Draw(t, "engine"), rapid.StringN(0, -1, 255).Draw(t, "data")
	}
	return r
}

// The bytes are those of the package's table.
func TestLayout(t *testing.T) {
	got := hex.EncodeToString(write(t, samples()[:1]))
	layout := func(minor, preamble, frame, end string) string {
		return strings.Join([]string{
			"5348554e54434e00", "0001", minor, "0010", "17979cfe362a0005", "036c6231", "03312e32", preamble,
			"00000048", "00000001", // 72 bytes, 1 record
			"0046", "0404", "06", "00", "01", "00", "0005", "9c40", "0050", "1f90", "0050", "0000", "06", "00", "0000", "00000000", "00000000",
			"000000d18c2e2800", "00000000b2d05e00", "000000003b9aca00", "cb007107", "c000020a", "c000020a", "0a000001", frame,
			"00000008", "00000000", "0000000000000001", end,
		}, "")
	}
	old, err := hex.DecodeString(layout("0000", "42c29c8e", "8f7ba9d9", "6f1e1830"))
	if err != nil {
		t.Fatal(err)
	}
	if records, err := read(old); err != nil || !cmp.Equal(samples()[:1], records, compare) {
		t.Errorf("read of version 1.0: %+v, %v", records, err)
	}
	if want := layout("0001", "fbf9d069", "415452d7", "3142c010"); got != want {
		t.Errorf("stream\n%s, want\n%s", got, want)
	}
}

// A stream that ends early is told, wherever it ends, and what was read before is right.
func TestTruncated(t *testing.T) {
	whole := write(t, samples())
	for n := range whole {
		got, err := read(whole[:n])
		if !errors.Is(err, record.ErrTruncated) {
			t.Errorf("%d of %d bytes: %v, want %v", n, len(whole), err, record.ErrTruncated)
		}
		if len(got) > 0 && !cmp.Equal(samples(), got, compare) {
			t.Errorf("%d of %d bytes: read %+v", n, len(whole), got)
		}
	}
}

// A stream in which one bit differs is told, and no record of the frame is read.
func TestDamaged(t *testing.T) {
	whole := write(t, samples())
	for bit := range 8 * len(whole) {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		got, err := read(b)
		if !errors.Is(err, record.ErrDamaged) && !errors.Is(err, record.ErrTruncated) && !errors.Is(err, record.ErrVersion) {
			t.Errorf("bit %d of byte %d changed: %v", bit%8, bit/8, err)
		}
		if len(got) > 0 && !cmp.Equal(samples(), got, compare) {
			t.Errorf("bit %d of byte %d changed: read %+v", bit%8, bit/8, got)
		}
	}
}

// A frame that is lost, doubled or out of its place shows by the next checksum.
func TestFramesAreChained(t *testing.T) {
	many := make([]record.Record, 2500) // of 72 and more bytes: several frames
	for i := range many {
		many[i] = samples()[0]
	}
	whole := write(t, many)
	begin := len(write(t, nil)) - 20 // without the end frame
	first := begin + 8 + int(binary.BigEndian.Uint32(whole[begin:])) + 4
	second := first + 8 + int(binary.BigEndian.Uint32(whole[first:])) + 4
	for name, b := range map[string][]byte{
		"lost":      append(bytes.Clone(whole[:begin]), whole[first:]...),
		"doubled":   append(bytes.Clone(whole[:first]), whole[begin:]...),
		"exchanged": append(append(append(bytes.Clone(whole[:begin]), whole[first:second]...), whole[begin:first]...), whole[second:]...),
	} {
		if _, err := read(b); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("a frame %s: %v, want %v", name, err, record.ErrDamaged)
		}
	}
	if got, err := read(whole); err != nil || len(got) != len(many) {
		t.Errorf("read %d records: %v, want %d", len(got), err, len(many))
	}
}

// sum appends the checksum of b.
func sum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// newer is a stream of the version whose header and record are longer by some bytes.
func newer(t *testing.T, major, minor uint16) []byte {
	old := write(t, samples()[:1])
	preamble := 14 + int(binary.BigEndian.Uint16(old[12:]))
	frame := bytes.Clone(old[preamble+4 : len(old)-20-4])
	b := append(bytes.Clone(old[:preamble]), "later"...)
	binary.BigEndian.PutUint16(b[8:], major)
	binary.BigEndian.PutUint16(b[10:], minor)
	binary.BigEndian.PutUint16(b[12:], uint16(preamble-14+5))
	binary.BigEndian.PutUint32(frame, binary.BigEndian.Uint32(frame)+3)
	binary.BigEndian.PutUint16(frame[8:], binary.BigEndian.Uint16(frame[8:])+3)
	b = sum(append(append(sum(b), frame...), "new"...))
	return sum(append(b, old[len(old)-20:len(old)-4]...))
}

// Of a newer minor version, what is not known is skipped; another major version is refused.
func TestVersions(t *testing.T) {
	got, err := read(newer(t, record.Major, record.Minor+1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(samples()[:1], got, compare); diff != "" {
		t.Errorf("read of a newer minor version (-want +got):\n%s", diff)
	}
	_, err = read(newer(t, record.Major+1, 4))
	if version := new(record.VersionError); !errors.As(err, &version) || *version != (record.VersionError{Major: record.Major + 1, Minor: 4}) {
		t.Errorf("a newer major version: %v", err)
	}
	if !errors.Is(err, record.ErrVersion) || err.Error() != "the stream of connections is of another version: it has 2.4, this program reads 1.x" {
		t.Errorf("a newer major version: %v", err)
	}
}

// What cannot be read as it is, is not written, and the stream goes on.
func TestWriteRefused(t *testing.T) {
	for name, change := range map[string]func(*record.Record){
		"method":          func(r *record.Record) { r.Connection.Method = "masq" },
		"no client":       func(r *record.Record) { r.Connection.Client = netip.AddrPort{} },
		"no stand-in":     func(r *record.Record) { r.Connection.Method = "fullnat" },
		"odd stand-in":    func(r *record.Record) { r.Connection.Local = addr("10.0.0.9:1") },
		"no server":       func(r *record.Record) { r.Connection.Server = netip.AddrPort{} },
		"families":        func(r *record.Record) { r.Service.Address = addr("[2001:db8::1]:80") },
		"zone":            func(r *record.Record) { r.Connection.Server = addr("[fe80::1%eth0]:80") },
		"prefix":          func(r *record.Record) { r.Connection.Prefix = 33 },
		"service's bits":  func(r *record.Record) { r.Service.Bits = 33 },
		"negative age":    func(r *record.Record) { r.Connection.Age = -1 },
		"negative idle":   func(r *record.Record) { r.Connection.Idle = -1 },
		"another mark":    func(r *record.Record) { r.Connection.Template, r.Connection.Mark = true, 9 },
		"long engine":     func(r *record.Record) { r.Connection.Engine = strings.Repeat("x", 256) },
		"long engine's":   func(r *record.Record) { r.Connection.EngineData = strings.Repeat("x", 256) },
		"connection mark": func(r *record.Record) { r.Connection.Mark = 9 },
	} {
		var b bytes.Buffer
		w, err := record.NewWriter(&b, header)
		if err != nil {
			t.Fatal(err)
		}
		good, bad := samples()[0], samples()[0]
		change(&bad)
		if err := w.Write(&bad); err == nil {
			t.Errorf("%s: written", name)
		}
		if err := errors.Join(w.Write(&good), w.Close()); err != nil {
			t.Errorf("%s: then %v", name, err)
		}
		if got, err := read(b.Bytes()); err != nil || !cmp.Equal(samples()[:1], got, compare) {
			t.Errorf("%s: read %+v, %v", name, got, err)
		}
	}
	if _, err := record.NewWriter(io.Discard, record.Header{Director: strings.Repeat("x", 256)}); err == nil {
		t.Error("a name of 256 bytes was written")
	}
}

// brokenPipe takes some bytes.
type brokenPipe struct{ left int }

func (p *brokenPipe) Write(b []byte) (int, error) {
	if p.left -= len(b); p.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

// An error of the underlying writer ends the stream: it is told at once and again.
func TestWriteErrors(t *testing.T) {
	w, err := record.NewWriter(&brokenPipe{left: 100}, header)
	if err != nil {
		t.Fatal(err)
	}
	r := samples()[0]
	for range 2000 {
		if err = w.Write(&r); err != nil {
			break
		}
	}
	if !errors.Is(err, io.ErrClosedPipe) || !errors.Is(w.Write(&r), io.ErrClosedPipe) || !errors.Is(w.Close(), io.ErrClosedPipe) {
		t.Errorf("write to a closed pipe: %v", err)
	}
	var b bytes.Buffer
	if w, err = record.NewWriter(&b, header); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	if w.Write(&r) == nil || w.Close() == nil {
		t.Error("written behind the end")
	}
}

// A reader takes no byte behind the end: another stream may follow.
func TestReadToItsEnd(t *testing.T) {
	both := bytes.NewReader(append(write(t, samples()), write(t, nil)...))
	for want := range 2 {
		r, err := record.NewReader(both)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range r.All() {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != (1-want)*len(samples()) {
			t.Errorf("stream %d: %d records", want, n)
		}
	}
}

// FuzzRead feeds any bytes, with checksums that are right where there is room for them.
func FuzzRead(f *testing.F) {
	f.Add(write(f, samples()))
	f.Add(write(f, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, stream := range [][]byte{b, mended(b)} {
			records, err := read(stream)
			if err != nil && !errors.Is(err, record.ErrDamaged) && !errors.Is(err, record.ErrTruncated) && !errors.Is(err, record.ErrVersion) {
				t.Fatalf("an error of no kind: %v", err)
			}
			if err != nil {
				continue
			}
			again, err := read(write(t, records))
			if err != nil || !cmp.Equal(records, again, compare) {
				t.Fatalf("%+v were read back as %+v: %v", records, again, err)
			}
		}
	})
}

// mended is the stream with right checksums, as far as it has frames.
func mended(b []byte) []byte {
	b = bytes.Clone(b)
	mend := func(at int) bool {
		if at+4 > len(b) {
			return false
		}
		copy(b[at:], sum(b[:at:at])[at:])
		return true
	}
	if len(b) < 14 {
		return b
	}
	at := 14 + int(binary.BigEndian.Uint16(b[12:]))
	for mend(at) {
		at += 4
		if at+8 > len(b) || binary.BigEndian.Uint32(b[at:]) > 1<<16 {
			break
		}
		at += 8 + int(binary.BigEndian.Uint32(b[at:]))
	}
	return b
}

// Neither way allocates for a record.
func TestAllocations(t *testing.T) {
	r := samples()[1]
	w, err := record.NewWriter(io.Discard, header)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(5000, func() {
		if err := w.Write(&r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a write allocates %v times", n)
	}
	many := make([]record.Record, 5000)
	for i := range many {
		many[i] = r
	}
	rd, err := record.NewReader(bytes.NewReader(write(t, many)))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(4000, func() {
		if err := rd.Next(&r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a read allocates %v times", n)
	}
}

func BenchmarkWrite(b *testing.B) {
	r := samples()[0]
	w, err := record.NewWriter(io.Discard, header)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := w.Write(&r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	many := make([]record.Record, 10000)
	for i := range many {
		many[i] = samples()[0]
	}
	stream := write(b, many)
	var r record.Record
	rd, err := record.NewReader(bytes.NewReader(stream))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		switch err := rd.Next(&r); {
		case err == io.EOF:
			if rd, err = record.NewReader(bytes.NewReader(stream)); err != nil {
				b.Fatal(err)
			}
		case err != nil:
			b.Fatal(err)
		}
	}
}
