package capture

import "github.com/cilium/ebpf"

// Watcher is the program that stands in shunt_root's place.
func (s *Session) Watcher() *ebpf.Program { return s.watcher }
