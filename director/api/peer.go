package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// peerKey is the key of a socket connection's *peer.
type peerKey struct{}

// peer is the process at the other end of the socket.
type peer struct {
	uid uint32
	who string // "name (uid N)"
	err error  // why the kernel would not tell
}

// connected asks the kernel who connected. The credentials are those of the
// moment of connect(2): whoever is handed the connection acts for its opener.
func (s *socket) connected(ctx context.Context, c net.Conn) context.Context {
	p := &peer{}
	p.uid, p.err = peerUID(c)
	p.who = nameOf(p.uid)
	return context.WithValue(ctx, peerKey{}, p)
}

// authenticate lets root and the daemon's own user do everything. Others could
// open the socket only because it is its group's.
func (s *socket) authenticate(r *http.Request) (caller, error) {
	p, ok := r.Context().Value(peerKey{}).(*peer)
	if !ok || p.err != nil {
		return caller{}, unauthorized("the kernel does not say who is at the other end of the socket", "")
	}
	switch {
	case p.uid == 0 || int(p.uid) == os.Geteuid():
		return caller{who: p.who, role: Admin, local: true}, nil
	case s.grouped:
		return caller{who: p.who, role: Operator, local: true}, nil
	default:
		return caller{}, unauthorized(p.who+" is neither root nor the daemon's user", "try sudo, or let a group in by socket-group in the daemon's configuration")
	}
}

func peerUID(c net.Conn) (uint32, error) {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is no Unix connection", c)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if inner != nil {
		return 0, inner
	}
	return cred.Uid, nil
}

// nameOf returns "name (uid N)", or the number alone if nobody has it.
func nameOf(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if found, err := user.LookupId(number); err == nil {
		return fmt.Sprintf("%s (uid %s)", found.Username, number)
	}
	return "uid " + number
}
