package director

// Rates are per second, as the kernel's estimator has them: moving averages that
// are brought up to date every EstimateSeconds.
type Rates Counters

// Estimator is the kernel's estimator of rates (kernel: net/netfilter/ipvs/
// ip_vs_est.c): each sample moves each average by a quarter of its distance to the
// rate of the last interval. The zero value has seen nothing.
type Estimator struct {
	last Counters
	// Scaled as the kernel's: connections and packets by 2^10, bytes by 2^5.
	connections, inPackets, outPackets, inBytes, outBytes uint64
}

// EstimateSeconds is the time between two samples.
const EstimateSeconds = 2

// The binary scales of the averages.
const (
	packetScale = 10
	byteScale   = 5
)

// Sample takes the counters as they are EstimateSeconds after the last sample.
func (e *Estimator) Sample(now Counters) {
	was := e.last
	e.last = now
	average(&e.connections, now.Connections, was.Connections, packetScale)
	average(&e.inPackets, now.InPackets, was.InPackets, packetScale)
	average(&e.outPackets, now.OutPackets, was.OutPackets, packetScale)
	average(&e.inBytes, now.InBytes, was.InBytes, byteScale)
	average(&e.outBytes, now.OutBytes, was.OutBytes, byteScale)
}

// average moves a scaled average a quarter of the way to the rate. Counters that
// went back, because they were set to zero, count from there.
func average(scaled *uint64, now, was uint64, scale uint) {
	if now < was {
		was = 0
	}
	rate := int64((now - was) << (scale - 1)) // a half, for two seconds
	*scaled = uint64(int64(*scaled) + (rate-int64(*scaled))>>2)
}

// Rates returns the averages, rounded up as ip_vs_read_estimator does.
func (e *Estimator) Rates() Rates {
	read := func(scaled uint64, scale uint) uint64 { return (scaled + 1<<(scale-1) - 1) >> scale }
	return Rates{
		Connections: read(e.connections, packetScale),
		InPackets:   read(e.inPackets, packetScale),
		OutPackets:  read(e.outPackets, packetScale),
		InBytes:     read(e.inBytes, byteScale),
		OutBytes:    read(e.outBytes, byteScale),
	}
}

// Reset forgets the averages and takes the counters as they are from here on.
func (e *Estimator) Reset(now Counters) { *e = Estimator{last: now} }
