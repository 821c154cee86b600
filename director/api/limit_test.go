package api

import (
	"errors"
	"net"
	"testing"
)

func TestLimitConns(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConns(tcp, 1)
	dial := func() {
		c, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	dial()
	dial()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case l.(*limited).slots <- struct{}{}:
		t.Fatal("there is room for a second connection")
	default:
	}
	_ = first.Close()
	_ = first.Close() // gives no second slot back
	second, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1) // one value, sent once
	go func() { _, err := l.Accept(); waiting <- err }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept without a slot after Close: %v", err)
	}
	_ = second.Close()
}
