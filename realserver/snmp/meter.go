package snmp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/shunt-lb/shunt/realserver"
)

// The objects, of UCD-SNMP-MIB but for the last.
const (
	oidMemory     = "1.3.6.1.4.1.2021.4."      // memory
	oidStats      = "1.3.6.1.4.1.2021.11."     // systemStats
	oidLoadInt    = "1.3.6.1.4.1.2021.10.1.5." // laLoadInt: hundredths, of 1, 5 and 15 minutes
	oidProcessors = oidStats + "67.0"          // ssCpuNumCpus
	oidProcessor  = "1.3.6.1.2.1.25.3.3.1.1"   // hrProcessorFrwID, of HOST-RESOURCES-MIB
	needed        = 3                          // of the processors' counters
	recountEvery  = 10 * time.Minute           // of processors: guests get others
	standsStill   = time.Minute                // snmpd reads /proc every 5 s
	maxTickRate   = 4096 * 1000.0              // of 4096 processors that tick 1000 times a second
	hundredths    = 100                        // of laLoadInt
	maxBackwards  = math.MaxUint32 / 2         // of a 32-bit counter: more is back
	maxObjectText = 32                         // bytes of a number that comes as text
	kindsOfMemory = 6                          // see memoryObjects
)

// ticks are Counter32s of time: the first needed ones are there wherever UCD-SNMP-MIB is.
// ssCpuRawKernel(55) is not among them: ssCpuRawSystem may have it in it.
var tickObjects = []string{
	oidStats + "50.0", // ssCpuRawUser
	oidStats + "52.0", // ssCpuRawSystem
	oidStats + "53.0", // ssCpuRawIdle
	oidStats + "51.0", // ssCpuRawNice
	oidStats + "54.0", // ssCpuRawWait
	oidStats + "56.0", // ssCpuRawInterrupt
	oidStats + "61.0", // ssCpuRawSoftIRQ
	oidStats + "64.0", // ssCpuRawSteal
}

// Places in tickObjects of what is no work.
const (
	idle = 2
	wait = 4
)

// memoryObjects are in kB. Those of 64 bits, and what the kernel itself takes to be
// available, came with Net-SNMP 5.9.
var memoryObjects = []string{
	oidMemory + "5.0",  // memTotalReal
	oidMemory + "20.0", // memTotalRealX
	oidMemory + "6.0",  // memAvailReal: free
	oidMemory + "14.0", // memBuffer
	oidMemory + "15.0", // memCached
	oidMemory + "27.0", // memSysAvail
}

// ticks are the counters' values at a time.
type ticks struct {
	at     time.Time
	values [8]uint32 // as tickObjects
}

// meter makes loads of what one host says, and remembers what that takes. Not safe for
// concurrent use.
type meter struct {
	host  netip.Addr
	terms realserver.SNMP // with defaults

	known      *security
	before     ticks // zero: none
	share      float64
	shared     bool      // there is a share
	processors int       // 0: not known
	counted    time.Time // when they were
}

// ask returns the host's load; false where it takes a second answer to tell.
func (m *meter) ask(ctx context.Context) (float64, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, m.terms.Timeout)
	defer cancel()
	s, err := open(ctx, m.host, m.terms, m.known)
	if err != nil {
		return 0, false, explain(err, m.terms)
	}
	defer s.close()
	closing := s.abort()
	stop := context.AfterFunc(ctx, func() { _ = closing() })
	defer stop()
	load, ok, err := m.measure(s)
	if err != nil {
		if ctx.Err() == context.DeadlineExceeded {
			err = ctx.Err()
		}
		if err = explain(err, m.terms); errors.Is(err, errSilent) && m.known == nil && s.isKnown() {
			// snmpd drops what decrypts to nothing that it can read.
			err = fmt.Errorf("%w, though it has told its name: see priv and priv-file", err)
		}
		m.known = nil
		return 0, false, err
	}
	m.known = s.security()
	return load, ok, nil
}

func (m *meter) measure(s *session) (float64, bool, error) {
	if m.terms.OID != "" {
		values, err := s.get([]string{m.terms.OID})
		if err != nil {
			return 0, false, err
		}
		load, err := m.object(values[0])
		return load, err == nil, err
	}
	oids := append(tickObjects[:len(tickObjects):len(tickObjects)], memoryObjects...)
	if m.terms.Measure != realserver.SNMPMeasureCPU {
		oids = append([]string{oidLoadInt + m.minutes(), oidProcessors}, memoryObjects...)
	}
	values, err := s.get(oids)
	if err != nil {
		return 0, false, err
	}
	first := len(values) - kindsOfMemory
	memory, err := memoryShare(values[first:])
	if err != nil {
		return 0, false, err
	}
	if m.terms.Measure != realserver.SNMPMeasureCPU {
		queue, err := m.queue(s, values[:first])
		return max(queue, memory), err == nil, err
	}
	if err := m.work(values[:first], time.Now()); err != nil {
		return 0, false, err
	}
	return max(m.share, memory), m.shared, nil
}

// object makes a load of one value: a number, or text that is one.
func (m *meter) object(v gosnmp.SnmpPDU) (float64, error) {
	value, ok := number(v)
	if text, isText := v.Value.([]byte); isText && v.Type == gosnmp.OctetString {
		line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		parsed, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		value, ok = parsed, err == nil && len(line) <= maxObjectText
	}
	switch {
	case missing(v):
		return 0, fmt.Errorf("the host has no object %s, or no view of it", m.terms.OID)
	case !ok || !(value >= 0) || math.IsInf(value, 0):
		return 0, fmt.Errorf("object %s is no number of 0 or more: it is of type %s", m.terms.OID, v.Type)
	}
	return value / float64(m.terms.Scale), nil
}

// minutes is the row of laLoadInt.
func (m *meter) minutes() string {
	return map[realserver.SNMPMeasure]string{
		realserver.SNMPMeasureLoad1: "1", realserver.SNMPMeasureLoad5: "2", realserver.SNMPMeasureLoad15: "3",
	}[m.terms.Measure]
}

// queue returns the run queue by processor.
func (m *meter) queue(s *session, values []gosnmp.SnmpPDU) (float64, error) {
	queue, ok := number(values[0])
	if missing(values[0]) {
		return 0, fmt.Errorf("the host has no laLoadInt (%s), or no view of it", oidLoadInt+m.minutes())
	}
	if !ok || !(queue >= 0) {
		return 0, fmt.Errorf("laLoadInt is no number of 0 or more: it is of type %s", values[0].Type)
	}
	if m.terms.Processors > 0 {
		m.processors = int(m.terms.Processors)
	} else if n, ok := number(values[1]); ok && n >= 1 {
		m.processors = int(n)
	} else if m.processors == 0 || time.Since(m.counted) >= recountEvery {
		n, err := s.count(oidProcessor)
		if err != nil {
			return 0, err
		}
		m.processors, m.counted = n, time.Now()
	}
	if m.processors == 0 {
		return 0, fmt.Errorf("the host does not say how many processors it has: give processors")
	}
	return queue / hundredths / float64(m.processors), nil
}

// work takes in the processors' counters, which snmpd reads now and then: between two
// answers they may stand still.
func (m *meter) work(values []gosnmp.SnmpPDU, now time.Time) error {
	next := ticks{at: now}
	var sum uint64
	for i, v := range values {
		n, ok := number(v)
		switch {
		case missing(v) && i >= needed:
			continue
		case missing(v):
			return fmt.Errorf("the host has no ssCpuRaw counters (%s), or no view of them", tickObjects[i])
		case !ok || !(n >= 0 && n <= math.MaxUint32):
			return fmt.Errorf("the counter %s is of type %s", tickObjects[i], v.Type)
		}
		next.values[i] = uint32(n)
		sum += uint64(next.values[i])
	}
	before := m.before
	if before.at.IsZero() {
		m.before = next
		return nil
	}
	var all, work float64
	for i := range next.values {
		moved := next.values[i] - before.values[i] // modulo 2^32: it comes round
		if moved > maxBackwards {
			return m.restart(next)
		}
		if all += float64(moved); i != idle && i != wait {
			work += float64(moved)
		}
	}
	passed := now.Sub(before.at)
	switch {
	case all == 0 && passed >= standsStill:
		m.shared = false
		return fmt.Errorf("the ssCpuRaw counters stand still for %s", passed.Round(time.Second))
	case all == 0:
		return nil
	case before.values == [8]uint32{} || all > maxTickRate*passed.Seconds():
		// snmpd has zeros at first. What moved too far is of another boot.
		return m.restart(next)
	}
	m.before, m.share, m.shared = next, work/all, true
	return nil
}

// restart begins with the counters anew, and says so where they had values.
func (m *meter) restart(next ticks) error {
	before := m.before
	m.before, m.shared = next, false
	if before.values == [8]uint32{} {
		return nil
	}
	return fmt.Errorf("the ssCpuRaw counters went back: the host began anew")
}

// memoryShare returns the share of memory that is not available; 0 where that is not
// known.
func memoryShare(values []gosnmp.SnmpPDU) (float64, error) {
	var kB [kindsOfMemory]float64
	var has [kindsOfMemory]bool
	for i, v := range values {
		if kB[i], has[i] = number(v); !has[i] && !missing(v) {
			return 0, fmt.Errorf("the object %s is of type %s", memoryObjects[i], v.Type)
		}
	}
	total, available := kB[0], kB[2]+kB[3]+kB[4]
	if has[1] {
		total = kB[1]
	}
	if has[5] {
		available = kB[5]
	}
	if !has[0] && !has[1] || !has[2] && !has[5] {
		return 0, nil
	}
	if !(total > 0 && available >= 0) {
		return 0, fmt.Errorf("the host says that %.0f kB of %.0f kB of memory are available", available, total)
	}
	return max(1-available/total, 0), nil
}

// missing reports whether the host has no such object, or does not show it.
func missing(v gosnmp.SnmpPDU) bool {
	switch v.Type {
	case gosnmp.NoSuchObject, gosnmp.NoSuchInstance, gosnmp.EndOfMibView, gosnmp.Null:
		return true
	}
	return false
}

// number returns a value that is one.
func number(v gosnmp.SnmpPDU) (float64, bool) {
	switch v.Type {
	case gosnmp.Integer, gosnmp.Counter32, gosnmp.Gauge32, gosnmp.TimeTicks, gosnmp.Counter64, gosnmp.Uinteger32:
		n, _ := gosnmp.ToBigInt(v.Value).Float64()
		return n, true
	case gosnmp.OpaqueFloat:
		f, ok := v.Value.(float32)
		return float64(f), ok
	case gosnmp.OpaqueDouble:
		f, ok := v.Value.(float64)
		return f, ok
	}
	return 0, false
}
