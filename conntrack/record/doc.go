// Package record is the form in which connections go from one director to
// another: through a file, a pipe, or later a wire. It owns the layout of the
// stream and says of every stream that is not whole what is wrong with it; what
// becomes of the records is the data plane's business. Begin reading at Record,
// Writer and Reader.
//
// All numbers are big endian, addresses as on the wire, durations 64-bit signed
// nanoseconds. A stream is a preamble, frames of records, and an end frame:
//
//	preamble   8  magic: "SHUNTCN" and a zero byte
//	           2  major version: readers refuse another one
//	           2  minor version: readers take every one
//	           2  length of the header
//	              header: 8 bytes time of creation (Unix, nanoseconds),
//	              1 byte length and text: the director's name,
//	              1 byte length and text: its version; more by newer minor versions
//	           4  checksum
//	frame      4  length of the records, 1 to 65536
//	           4  number of records, not 0
//	              records
//	           4  checksum
//	end frame  4  8
//	           4  0
//	           8  number of records in the stream
//	           4  checksum
//
// Every checksum is the CRC-32C (RFC 3720 appendix B.4) of all bytes of the stream
// before it, so that a frame that is lost or out of its order shows too; a reader
// hands out no record of a frame before it has compared the checksum. A record:
//
//	 0   2  length of what follows: newer minor versions append to it, and readers
//	        skip what they do not know
//	 2   1  family of client, virtual and service's address: 4 or 6
//	 3   1  family of the server's address
//	 4   1  protocol; of a template of a firewall mark's service: 0
//	 5   1  method: 0 nat and fullnat, 1 local, 2 tunnel, 3 dr (kernel: IP_VS_CONN_F_FWD_MASK)
//	 6   1  state, as numbered by conntrack.State
//	 7   1  length of a template's client network
//	 8   2  flags: 1 proven, 2 template, 4 under a template, 8 with traffic,
//	        16 with an engine, 32 fullnat (1.1); readers ignore others
//	10   2  client's port; of a template: 0
//	12   2  virtual port
//	14   2  server's port
//	16   2  service's port: the first, 0 for all
//	18   2  service's last port; 0: no range
//	20   1  service's protocol; of a firewall mark's: 0
//	21   1  service's prefix length; 0: one address
//	22   2  0
//	24   4  service's firewall mark; 0: none
//	28   4  connections under a template
//	32   8  time left
//	40   8  age
//	48   8  idle
//	56      addresses of 4 or 16 bytes: client, virtual, service; then the server's
//	        with traffic: packets and bytes in, packets and bytes out, 8 bytes each
//	        with an engine: 1 byte length and its name, 1 byte length and its data
//	        fullnat, no template's: 2 bytes port and the address, of the client's
//	        family, that stand in for the client (1.1)
//
// A template comes before the connections under it. Times are as of the moment the
// record was made; they are not counted on by the header's time, since two directors'
// clocks may differ by more than a connection lives.
package record
