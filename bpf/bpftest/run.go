package bpftest

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Action is what a program says shall become of a packet (kernel:
// include/uapi/linux/bpf.h, enum xdp_action).
type Action uint32

// The actions.
const (
	Aborted Action = iota
	Drop
	Pass
	TX
	Redirect
)

func (a Action) String() string {
	names := [...]string{"aborted", "drop", "pass", "tx", "redirect"}
	if int(a) < len(names) {
		return names[a]
	}
	return fmt.Sprintf("action %d", uint32(a))
}

// Result is what became of a packet. Packet is nil unless the action sends it or
// passes it.
type Result struct {
	Action Action
	Packet []byte
}

// xdpContext is struct xdp_md (kernel: include/uapi/linux/bpf.h).
type xdpContext struct {
	Data, DataEnd, DataMeta                     uint32
	IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// growth is more than the programs ever add to a frame.
const growth = 256

// Run sends a frame, at least 14 octets long, in from Outside.
func (f *Fixture) Run(frame []byte) Result {
	f.t.Helper()
	return f.RunOn(f.Outside, frame)
}

// RunOn sends a frame in from the interface with this index. In front of it is room,
// full of 0xff.
func (f *Fixture) RunOn(iface uint32, frame []byte) Result {
	f.t.Helper()
	var result Result
	var err error
	program := f.soiled()
	f.Do(func() { result, err = Run(program, iface, frame) })
	f.must(err)
	return result
}

// Run runs the program once over a copy of the frame, which came in from the
// interface with this index in the calling thread's network namespace.
func Run(program *ebpf.Program, iface uint32, frame []byte) (Result, error) {
	out := make([]byte, len(frame)+growth)
	options := ebpf.RunOptions{
		Data: frame, DataOut: out,
		Context: xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: iface},
	}
	action, err := program.Run(&options)
	if err != nil {
		return Result{}, fmt.Errorf("run %d octets: %w", len(frame), err)
	}
	r := Result{Action: Action(action)}
	if r.Action != Drop && r.Action != Aborted {
		r.Packet = options.DataOut
	}
	return r, nil
}

// RunCramped sends a frame in that has hardly any room in front: what there was is
// metadata of another program. EINVAL: the kernel takes less of that.
func (f *Fixture) RunCramped(iface uint32, frame []byte) (Result, error) {
	const metadata = 200
	data := append(make([]byte, metadata), frame...)
	options := ebpf.RunOptions{
		Data: data, DataOut: make([]byte, len(data)+growth),
		Context: xdpContext{Data: metadata, DataEnd: uint32(len(data)), IngressIfindex: iface},
	}
	var action uint32
	var err error
	f.Do(func() { action, err = f.Plane.ShuntRoot.Run(&options) })
	return Result{Action: Action(action)}, err
}
