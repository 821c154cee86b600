package kernel

// Numbers of the generic netlink family IPVS (kernel: include/uapi/linux/ip_vs.h).
const (
	familyName    = "IPVS"
	familyVersion = 1 // IPVS_GENL_VERSION

	commandNewService    = 1  // IPVS_CMD_NEW_SERVICE
	commandSetService    = 2  // IPVS_CMD_SET_SERVICE
	commandDeleteService = 3  // IPVS_CMD_DEL_SERVICE
	commandGetService    = 4  // IPVS_CMD_GET_SERVICE
	commandNewServer     = 5  // IPVS_CMD_NEW_DEST
	commandSetServer     = 6  // IPVS_CMD_SET_DEST
	commandDeleteServer  = 7  // IPVS_CMD_DEL_DEST
	commandGetServer     = 8  // IPVS_CMD_GET_DEST
	commandNewDaemon     = 9  // IPVS_CMD_NEW_DAEMON
	commandDeleteDaemon  = 10 // IPVS_CMD_DEL_DAEMON
	commandGetDaemon     = 11 // IPVS_CMD_GET_DAEMON
	commandSetConfig     = 12 // IPVS_CMD_SET_CONFIG
	commandGetConfig     = 13 // IPVS_CMD_GET_CONFIG
	commandGetInfo       = 15 // IPVS_CMD_GET_INFO
	commandZero          = 16 // IPVS_CMD_ZERO
	commandFlush         = 17 // IPVS_CMD_FLUSH

	attrService       = 1 // IPVS_CMD_ATTR_SERVICE
	attrServer        = 2 // IPVS_CMD_ATTR_DEST
	attrDaemon        = 3 // IPVS_CMD_ATTR_DAEMON
	attrTimeoutTCP    = 4 // IPVS_CMD_ATTR_TIMEOUT_TCP
	attrTimeoutTCPFin = 5 // IPVS_CMD_ATTR_TIMEOUT_TCP_FIN
	attrTimeoutUDP    = 6 // IPVS_CMD_ATTR_TIMEOUT_UDP

	infoVersion   = 1 // IPVS_INFO_ATTR_VERSION
	infoTableSize = 2 // IPVS_INFO_ATTR_CONN_TAB_SIZE

	serviceFamily    = 1  // IPVS_SVC_ATTR_AF
	serviceProtocol  = 2  // IPVS_SVC_ATTR_PROTOCOL
	serviceAddress   = 3  // IPVS_SVC_ATTR_ADDR
	servicePort      = 4  // IPVS_SVC_ATTR_PORT
	serviceMark      = 5  // IPVS_SVC_ATTR_FWMARK
	serviceScheduler = 6  // IPVS_SVC_ATTR_SCHED_NAME
	serviceFlags     = 7  // IPVS_SVC_ATTR_FLAGS
	serviceTimeout   = 8  // IPVS_SVC_ATTR_TIMEOUT
	serviceNetmask   = 9  // IPVS_SVC_ATTR_NETMASK
	serviceStats     = 10 // IPVS_SVC_ATTR_STATS
	serviceEngine    = 11 // IPVS_SVC_ATTR_PE_NAME
	serviceStats64   = 12 // IPVS_SVC_ATTR_STATS64

	serverAddress     = 1  // IPVS_DEST_ATTR_ADDR
	serverPort        = 2  // IPVS_DEST_ATTR_PORT
	serverMethod      = 3  // IPVS_DEST_ATTR_FWD_METHOD
	serverWeight      = 4  // IPVS_DEST_ATTR_WEIGHT
	serverUpper       = 5  // IPVS_DEST_ATTR_U_THRESH
	serverLower       = 6  // IPVS_DEST_ATTR_L_THRESH
	serverActive      = 7  // IPVS_DEST_ATTR_ACTIVE_CONNS
	serverInactive    = 8  // IPVS_DEST_ATTR_INACT_CONNS
	serverPersistent  = 9  // IPVS_DEST_ATTR_PERSIST_CONNS
	serverStats       = 10 // IPVS_DEST_ATTR_STATS
	serverFamily      = 11 // IPVS_DEST_ATTR_ADDR_FAMILY
	serverStats64     = 12 // IPVS_DEST_ATTR_STATS64
	serverTunnelType  = 13 // IPVS_DEST_ATTR_TUN_TYPE
	serverTunnelPort  = 14 // IPVS_DEST_ATTR_TUN_PORT
	serverTunnelFlags = 15 // IPVS_DEST_ATTR_TUN_FLAGS

	// Of STATS, 32 bits wide save the octets, and of STATS64.
	statsConnections    = 1  // IPVS_STATS_ATTR_CONNS
	statsInPackets      = 2  // IPVS_STATS_ATTR_INPKTS
	statsOutPackets     = 3  // IPVS_STATS_ATTR_OUTPKTS
	statsInBytes        = 4  // IPVS_STATS_ATTR_INBYTES
	statsOutBytes       = 5  // IPVS_STATS_ATTR_OUTBYTES
	statsConnectionRate = 6  // IPVS_STATS_ATTR_CPS
	statsInPacketRate   = 7  // IPVS_STATS_ATTR_INPPS
	statsOutPacketRate  = 8  // IPVS_STATS_ATTR_OUTPPS
	statsInByteRate     = 9  // IPVS_STATS_ATTR_INBPS
	statsOutByteRate    = 10 // IPVS_STATS_ATTR_OUTBPS

	daemonRole      = 1 // IPVS_DAEMON_ATTR_STATE
	daemonInterface = 2 // IPVS_DAEMON_ATTR_MCAST_IFN
	daemonID        = 3 // IPVS_DAEMON_ATTR_SYNC_ID
	daemonMaxLength = 4 // IPVS_DAEMON_ATTR_SYNC_MAXLEN
	daemonGroup     = 5 // IPVS_DAEMON_ATTR_MCAST_GROUP
	daemonGroup6    = 6 // IPVS_DAEMON_ATTR_MCAST_GROUP6
	daemonPort      = 7 // IPVS_DAEMON_ATTR_MCAST_PORT
	daemonTTL       = 8 // IPVS_DAEMON_ATTR_MCAST_TTL

	// Lengths of names, with the final zero.
	maxSchedulerName = 16 // IP_VS_SCHEDNAME_MAXLEN
	maxEngineName    = 16 // IP_VS_PENAME_MAXLEN
	maxInterfaceName = 16 // IP_VS_IFNAME_MAXLEN
)
