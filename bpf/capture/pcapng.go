package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// The types of blocks, and the options, that are written (draft-ietf-opsawg-pcapng,
// "PCAP Now Generic (pcapng) Capture File Format", sections 3.5 and 4).
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6

	optionEnd             = 0
	optionComment         = 1
	optionApplication     = 4 // shb_userappl
	optionInterfaceName   = 2 // if_name
	optionResolution      = 9 // if_tsresol
	optionDropCount       = 4 // epb_dropcount
	optionPacketID        = 5 // epb_packetid
	optionVerdict         = 7 // epb_verdict
	optionReceived        = 4 // isb_ifrecv
	optionInterfaceDrops  = 5 // isb_ifdrop
	verdictXDP            = 2 // Linux_eBPF_XDP
	linkEthernet          = 1
	byteOrderMagic        = 0x1a2b3c4d
	nanoseconds           = 9 // 10^-9 s
	lengthOfSectionAbsent = ^uint64(0)
)

// Block is a packet as it is written.
type Block struct {
	Interface int // as AddInterface has numbered it
	Time      time.Time
	Length    int // of the frame; Data is what of it is shown
	Data      []byte
	Comment   string
	ID        uint64  // the same of the blocks of one packet
	Missed    uint64  // packets that are missing before this one
	Action    *uint32 // the XDP verdict; nil: none yet
}

// Writer writes pcapng. Each block goes out by one Write. It is written here, and not by
// gopacket's pcapgo, as that brings every protocol's decoder into the daemon.
type Writer struct {
	w          io.Writer
	interfaces int
	block      []byte
}

// NewWriter writes the section's header, which names the program.
func NewWriter(w io.Writer, application string) (*Writer, error) {
	p := &Writer{w: w}
	p.begin(blockSection)
	p.u32(byteOrderMagic)
	p.u16(1) // version 1.0
	p.u16(0)
	p.u64(lengthOfSectionAbsent)
	p.text(optionApplication, application)
	return p, p.end("begin a capture")
}

// AddInterface writes that there is a network interface, and returns its number.
func (p *Writer) AddInterface(name string, snaplen int) (int, error) {
	p.begin(blockInterface)
	p.u16(linkEthernet)
	p.u16(0)
	p.u32(uint32(snaplen))
	p.text(optionInterfaceName, name)
	p.option(optionResolution, []byte{nanoseconds})
	p.interfaces++
	return p.interfaces - 1, p.end("write an interface of a capture")
}

// Write writes a packet.
func (p *Writer) Write(b *Block) error {
	if b.Interface < 0 || b.Interface >= p.interfaces {
		return fmt.Errorf("write a packet of a capture: there is no interface %d", b.Interface)
	}
	p.begin(blockPacket)
	p.u32(uint32(b.Interface))
	p.time(b.Time)
	p.u32(uint32(len(b.Data)))
	p.u32(uint32(max(b.Length, len(b.Data))))
	p.padded(b.Data)
	p.text(optionComment, b.Comment)
	if b.Missed > 0 {
		p.number(optionDropCount, b.Missed)
	}
	p.number(optionPacketID, b.ID)
	if b.Action != nil {
		p.option(optionVerdict, append([]byte{verdictXDP}, binary.LittleEndian.AppendUint64(nil, uint64(*b.Action))...))
	}
	return p.end("write a packet of a capture")
}

// WriteStatistics writes how many packets the interface has had, and how many of them are
// missing.
func (p *Writer) WriteStatistics(id int, at time.Time, received, missed uint64) error {
	p.begin(blockStatistics)
	p.u32(uint32(id))
	p.time(at)
	p.number(optionReceived, received)
	p.number(optionInterfaceDrops, missed)
	return p.end("write the statistics of a capture")
}

// begin begins a block; its length stands at its begin and at its end.
func (p *Writer) begin(kind uint32) {
	p.block = p.block[:0]
	p.u32(kind)
	p.u32(0)
}

func (p *Writer) end(what string) error {
	p.u16(optionEnd)
	p.u16(0)
	length := uint32(len(p.block) + 4)
	p.u32(length)
	binary.LittleEndian.PutUint32(p.block[4:], length)
	if _, err := p.w.Write(p.block); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (p *Writer) u16(v uint16) { p.block = binary.LittleEndian.AppendUint16(p.block, v) }
func (p *Writer) u32(v uint32) { p.block = binary.LittleEndian.AppendUint32(p.block, v) }
func (p *Writer) u64(v uint64) { p.block = binary.LittleEndian.AppendUint64(p.block, v) }

// time writes the high half first.
func (p *Writer) time(t time.Time) {
	ns := uint64(t.UnixNano())
	p.u32(uint32(ns >> 32))
	p.u32(uint32(ns))
}

// padded writes octets, and zeros up to a multiple of four.
func (p *Writer) padded(b []byte) {
	p.block = append(p.block, b...)
	for len(p.block)%4 != 0 {
		p.block = append(p.block, 0)
	}
}

func (p *Writer) option(code uint16, value []byte) {
	p.u16(code)
	p.u16(uint16(len(value)))
	p.padded(value)
}

func (p *Writer) number(code uint16, v uint64) {
	p.option(code, binary.LittleEndian.AppendUint64(nil, v))
}

// text writes an option that is left out if it is empty, and cut if it is longer than one can be.
func (p *Writer) text(code uint16, v string) {
	if v != "" {
		p.option(code, []byte(v[:min(len(v), 1<<16-1)]))
	}
}
