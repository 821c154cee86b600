package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of the generic netlink family IPVS (kernel: include/uapi/linux/ip_vs.h).
const (
	genlVersion = 1 // IPVS_GENL_VERSION

	commandNewService = 1  // IPVS_CMD_NEW_SERVICE
	commandSetService = 2  // IPVS_CMD_SET_SERVICE
	commandDelService = 3  // IPVS_CMD_DEL_SERVICE
	commandNewServer  = 5  // IPVS_CMD_NEW_DEST
	commandSetServer  = 6  // IPVS_CMD_SET_DEST
	commandDelServer  = 7  // IPVS_CMD_DEL_DEST
	commandGetServer  = 8  // IPVS_CMD_GET_DEST
	commandSetConfig  = 12 // IPVS_CMD_SET_CONFIG

	attrService       = 1 // IPVS_CMD_ATTR_SERVICE
	attrServer        = 2 // IPVS_CMD_ATTR_DEST
	attrTimeoutTCP    = 4 // IPVS_CMD_ATTR_TIMEOUT_TCP
	attrTimeoutTCPFin = 5 // IPVS_CMD_ATTR_TIMEOUT_TCP_FIN
	attrTimeoutUDP    = 6 // IPVS_CMD_ATTR_TIMEOUT_UDP

	serviceFamily    = 1 // IPVS_SVC_ATTR_AF
	serviceProtocol  = 2 // IPVS_SVC_ATTR_PROTOCOL
	serviceAddress   = 3 // IPVS_SVC_ATTR_ADDR
	servicePort      = 4 // IPVS_SVC_ATTR_PORT
	serviceMark      = 5 // IPVS_SVC_ATTR_FWMARK
	serviceScheduler = 6 // IPVS_SVC_ATTR_SCHED_NAME
	serviceFlags     = 7 // IPVS_SVC_ATTR_FLAGS
	serviceTimeout   = 8 // IPVS_SVC_ATTR_TIMEOUT
	serviceNetmask   = 9 // IPVS_SVC_ATTR_NETMASK

	serverAddress  = 1 // IPVS_DEST_ATTR_ADDR
	serverPort     = 2 // IPVS_DEST_ATTR_PORT
	serverMethod   = 3 // IPVS_DEST_ATTR_FWD_METHOD
	serverWeight   = 4 // IPVS_DEST_ATTR_WEIGHT
	serverUpper    = 5 // IPVS_DEST_ATTR_U_THRESH
	serverLower    = 6 // IPVS_DEST_ATTR_L_THRESH
	serverActive   = 7 // IPVS_DEST_ATTR_ACTIVE_CONNS
	serverInactive = 8 // IPVS_DEST_ATTR_INACT_CONNS
	serverPersist  = 9 // IPVS_DEST_ATTR_PERSIST_CONNS

	flagPersistent = 1 // IP_VS_SVC_F_PERSISTENT
	flagOnePacket  = 4 // IP_VS_SVC_F_ONEPACKET
	flagFallback   = 8 // IP_VS_SVC_F_SCHED_SH_FALLBACK, IP_VS_SVC_F_SCHED_MH_FALLBACK
	flagPort       = 16
)

// openNetlink runs in the namespace.
func (k *Kernel) openNetlink() error {
	socket, err := nl.Subscribe(unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("open generic netlink: %w", err)
	}
	k.generic = &nl.SocketHandle{Socket: socket}
	family, err := netlink.GenlFamilyGet("IPVS")
	if err != nil {
		return fmt.Errorf("find the netlink family IPVS: %w", err)
	}
	k.family = family.ID
	return nil
}

// request runs a command and returns its answers' attributes.
func (k *Kernel) request(command uint8, flags int, attributes ...*nl.RtAttr) ([]map[uint16]attribute, error) {
	r := nl.NewNetlinkRequest(int(k.family), flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: k.generic}
	r.AddData(&nl.Genlmsg{Command: command, Version: genlVersion})
	for _, a := range attributes {
		r.AddData(a)
	}
	messages, err := r.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, err
	}
	var answers []map[uint16]attribute
	for _, m := range messages {
		if len(m) < nl.SizeofGenlmsg {
			return nil, fmt.Errorf("netlink answer of %d octets", len(m))
		}
		attributes, err := parse(m[nl.SizeofGenlmsg:])
		if err != nil {
			return nil, err
		}
		answers = append(answers, attributes)
	}
	return answers, nil
}

// attribute is a netlink attribute's content.
type attribute []byte

func (a attribute) uint32() uint32 {
	if len(a) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a)
}

func (a attribute) uint16() uint16 {
	if len(a) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(a) // only ports are read
}

func parse(b []byte) (map[uint16]attribute, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, fmt.Errorf("netlink attributes: %w", err)
	}
	attributes := map[uint16]attribute{}
	for _, a := range list {
		attributes[a.Attr.Type&^uint16(unix.NLA_F_NESTED)] = a.Value
	}
	return attributes, nil
}

// octets returns an address as IPVS takes it: 16 octets, IPv4 in the first four.
func octets(a netip.Addr) []byte {
	b := make([]byte, 16)
	copy(b, a.AsSlice())
	return b
}

func familyOf(a netip.Addr) uint16 {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
