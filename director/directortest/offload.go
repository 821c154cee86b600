package directortest

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offload is a feature of a network interface that can be switched.
type Offload uint32

// The offloads that matter to XDP on veth.
const (
	// TxChecksum leaves checksums to a card that veth does not have; off, the
	// sender computes them. A packet that passes through XDP must have its
	// checksum. Off also ends TSO.
	TxChecksum Offload = unix.ETHTOOL_STXCSUM
	// GRO merges received packets; on, a veth can receive what XDP redirects.
	GRO Offload = unix.ETHTOOL_SGRO
)

// SetOffload switches a feature of a link, as ethtool -K does.
func (n *Namespace) SetOffload(name string, feature Offload, on Switch) error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket for ethtool: %w", err)
		}
		defer unix.Close(fd)

		// struct ethtool_value (kernel: include/uapi/linux/ethtool.h)
		value := struct{ command, data uint32 }{uint32(feature), uint32(on)}
		// struct ifreq with ifr_data (kernel: include/uapi/linux/if.h)
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		if len(name) >= len(request.name) {
			return fmt.Errorf("link name %q is too long", name)
		}
		copy(request.name[:], name)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		runtime.KeepAlive(&value)
		if errno != 0 {
			return fmt.Errorf("set offload %#x of %s in %s: %w", uint32(feature), name, n.Name, errno)
		}
		return nil
	})
}

// Switch is on or off.
type Switch uint32

// The positions of a switch.
const (
	Off Switch = 0
	On  Switch = 1
)
