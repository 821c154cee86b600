package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/directortest"
)

// inRoom marks the process that TestRoom starts.
const inRoom = "SHUNT_TEST_ROOM"

// TestRoomProcess is what the daemon does: it opens the room, gives up what only the
// start takes, links the room and makes a socket in it.
func TestRoomProcess(t *testing.T) {
	if os.Getenv(inRoom) == "" {
		t.Skip("TestRoom starts it")
	}
	r, err := openRoom()
	if err != nil {
		t.Fatal(err)
	}
	left, err := cap.FromText("cap_net_admin,cap_bpf,cap_perfmon=ep")
	if err == nil {
		err = left.SetProc()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err == nil {
		t.Fatal("a namespace can still be made")
	}
	outside, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.connect(outside); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"10.0.0.1", "2001:db8::1"} {
		from := netip.MustParseAddr(own)
		if err := r.add(from); err != nil {
			t.Fatal(err)
		}
		if _, err := r.dial(t.Context(), conntrack.UDP, netip.AddrPortFrom(from, 61000), netip.AddrPortFrom(from.Next(), 80)); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println(inRoom)
	time.Sleep(time.Minute) // until it is killed
}

// The room works with what rights the daemon keeps, and goes with a process that is
// killed, the link in the host's namespace with it.
func TestRoom(t *testing.T) {
	directortest.Privileged(t)
	host, err := directortest.NewNamespace("host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	cmd := exec.Command(os.Args[0], "-test.run=^TestRoomProcess$", "-test.timeout=50s")
	cmd.Env = append(os.Environ(), inRoom+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 4096)
	n, _ := out.Read(said)
	links := func() int {
		all, err := host.Netlink().LinkList()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if got := links(); string(said[:n]) != inRoom+"\n" || got != 2 { // lo and the link
		t.Errorf("said %q, and the host has %d links; want %s and 2", said[:n], got, inRoom)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	for deadline := time.Now().Add(20 * time.Second); links() > 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the link is still there")
		}
	}
}

// Closing ends what connects at that time.
func TestRoomClosed(t *testing.T) {
	directortest.Privileged(t)
	r, err := openRoom()
	if err != nil {
		t.Fatal(err)
	}
	r.close()
	from := netip.MustParseAddrPort("127.0.0.1:61000")
	if _, err := r.dial(t.Context(), conntrack.UDP, from, from); !errors.Is(err, errClosed) {
		t.Errorf("error %v, want %v", err, errClosed)
	}
}
