package snmp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// host is an agent of version 2c that says what the test has it say.
type host struct {
	conn   *net.UDPConn
	answer func(request []byte) [][]byte
	done   sync.WaitGroup
}

func startHost(t *testing.T, answer func(request []byte) [][]byte) *host {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{conn: conn, answer: answer}
	h.done.Go(func() {
		request := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDP(request)
			if err != nil {
				return
			}
			for _, reply := range h.answer(request[:n]) {
				_, _ = conn.WriteToUDP(reply, from)
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); h.done.Wait() })
	return h
}

func (h *host) terms() realserver.SNMP {
	port := uint16(h.conn.LocalAddr().(*net.UDPAddr).Port)
	return realserver.SNMP{Version: realserver.SNMPv2c, Port: port, Timeout: 150 * time.Millisecond, OID: "1.3.6.1.4.1.1.1"}.WithDefaults()
}

// ber encodes an object of BER: a tag, a length and the rest.
func ber(tag byte, parts ...[]byte) []byte {
	var body []byte
	for _, part := range parts {
		body = append(body, part...)
	}
	if len(body) < 128 {
		return append([]byte{tag, byte(len(body))}, body...)
	}
	return append([]byte{tag, 0x82, byte(len(body) >> 8), byte(len(body))}, body...)
}

var (
	objectName = ber(6, []byte{0x2b, 6, 1, 4, 1, 1, 1})
	seven      = ber(2, []byte{7})
)

// reply is a response to the request: of version 2c whose community is public, where the
// request's number is the first integer of its PDU.
func reply(request []byte, edit func(id []byte) (pdu []byte)) []byte {
	at := strings.Index(string(request), "public") + len("public") + 2
	id := request[at : at+2+int(request[at+1])]
	return ber(0x30, ber(2, []byte{1}), ber(4, []byte("public")), edit(id))
}

func response(id []byte, status byte, bindings ...[]byte) []byte {
	return ber(0xa2, id, ber(2, []byte{status}), ber(2, []byte{0}), ber(0x30, bindings...))
}

func TestMalformedAnswers(t *testing.T) {
	one := func(edit func(id []byte) []byte) func([]byte) [][]byte {
		return func(request []byte) [][]byte { return [][]byte{reply(request, edit)} }
	}
	value := func(v []byte) func([]byte) [][]byte {
		return one(func(id []byte) []byte { return response(id, 0, ber(0x30, objectName, v)) })
	}
	good := func(id []byte) []byte { return response(id, 0, ber(0x30, objectName, seven)) }
	for _, tt := range []struct {
		name   string
		answer func(request []byte) [][]byte
		want   string // "": a load of 0.07; "*": any error
	}{
		{"good", one(good), ""},
		{"a stray one before", func(request []byte) [][]byte {
			return [][]byte{reply(request, func([]byte) []byte {
				return response(ber(2, []byte{0x11, 0x22}), 0, ber(0x30, objectName, ber(2, []byte{9})))
			}), reply(request, good)}
		}, ""},
		{"none", func([]byte) [][]byte { return nil }, "no answer within 150ms"},
		{"another number for ever", func(request []byte) [][]byte {
			all := make([][]byte, 50)
			for i := range all {
				all[i] = reply(request, func([]byte) []byte { return response(ber(2, []byte{1, byte(i)}), 0, ber(0x30, objectName, seven)) })
			}
			return all
		}, "no answer within 150ms"},
		{"number 0", one(func([]byte) []byte { return good(ber(2, []byte{0})) }), "the answer is none"},
		{"empty", func([]byte) [][]byte { return [][]byte{{}} }, "*"},
		{"noise", func([]byte) [][]byte { return [][]byte{[]byte(strings.Repeat("\xff\x00~", 20000))} }, "*"},
		{"truncated", func(request []byte) [][]byte { whole := reply(request, good); return [][]byte{whole[:len(whole)-3]} }, "*"},
		{"a length beyond the end", func(request []byte) [][]byte {
			whole := reply(request, good)
			whole[1] = 0x7f
			return [][]byte{whole}
		}, "*"},
		{"a length of four octets", func([]byte) [][]byte { return [][]byte{{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2, 1, 1}} }, "*"},
		{"huge", func(request []byte) [][]byte {
			return [][]byte{reply(request, func(id []byte) []byte {
				return response(id, 0, ber(0x30, objectName, ber(4, []byte(strings.Repeat("7", 60000)))))
			})}
		}, "is no number"},
		{"an error", one(func(id []byte) []byte { return response(id, 5, ber(0x30, objectName, seven)) }), "the host answers with the error GenErr"},
		{"another object", one(func(id []byte) []byte {
			return response(id, 0, ber(0x30, ber(6, []byte{0x2b, 6, 1, 4, 1, 1, 2}), seven))
		}), "the answer has .1.3.6.1.4.1.1.2 in place of"},
		{"two objects", one(func(id []byte) []byte {
			return response(id, 0, ber(0x30, objectName, seven), ber(0x30, objectName, seven))
		}), "the answer has 2 values, of 1 asked for"},
		{"a question", one(func(id []byte) []byte { return ber(0xa0, good(id)[2:]) }), "the answer is none: a PDU of type 0xa0"},
		{"missing", value([]byte{0x80, 0}), "no object 1.3.6.1.4.1.1.1"},
		{"negative", value(ber(2, []byte{0xff})), "is no number of 0 or more"},
		{"text", value(ber(4, []byte("busy"))), "is no number of 0 or more: it is of type OctetString"},
		{"not a number", value(ber(4, []byte("NaN"))), "is no number of 0 or more"},
		{"no number of a float", value(ber(0x44, []byte{0x9f, 0x78, 4}, binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(math.NaN()))))), "is no number of 0 or more"},
		{"an address", value(ber(0x40, []byte{10, 0, 0, 1})), "is no number of 0 or more: it is of type IPAddress"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := startHost(t, tt.answer)
			m := &meter{host: loopback, terms: h.terms()}
			load, ok, err := m.ask(context.Background())
			switch {
			case tt.want == "":
				if err != nil || !ok || load != 0.07 {
					t.Errorf("load %v, %v, %v, want 0.07", load, ok, err)
				}
			case err == nil:
				t.Errorf("load %v, want an error", load)
			case tt.want != "*" && !strings.Contains(err.Error(), tt.want):
				t.Errorf("%v, want %s", err, tt.want)
			case len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n"):
				t.Errorf("an error of %d bytes: %.300s", len(err.Error()), err)
			}
		})
	}
}

// TestAnswersOfOthers: who is not asked is not heard.
func TestAnswersOfOthers(t *testing.T) {
	listen := func() *net.UDPConn {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice()})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	asked, other := listen(), listen()
	var forged atomic.Int32
	var work sync.WaitGroup
	work.Go(func() {
		request := make([]byte, 65536)
		for {
			n, from, err := asked.ReadFromUDP(request)
			if err != nil {
				return
			}
			answer := reply(request[:n], func(id []byte) []byte { return response(id, 0, ber(0x30, objectName, seven)) })
			if _, err := other.WriteToUDP(answer, from); err == nil {
				forged.Add(1)
			}
		}
	})
	m := &meter{host: loopback, terms: (&host{conn: asked}).terms()}
	load, _, err := m.ask(context.Background())
	_, _ = asked.Close(), other.Close()
	work.Wait()
	if err == nil || forged.Load() == 0 {
		t.Errorf("load %v, %v: %d answers of somebody else", load, err, forged.Load())
	}
}

// TestNobodyThere: the host says so, and a daemon that stops does not wait.
func TestNobodyThere(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	h := startHost(t, func([]byte) [][]byte { cancel(); return nil })
	terms := h.terms()
	terms.Timeout = time.Hour
	if _, _, err := (&meter{host: loopback, terms: terms}).ask(ctx); err == nil {
		t.Error("nobody answered, and there is no error")
	}
	_ = h.conn.Close()
	_, _, err := (&meter{host: loopback, terms: terms}).ask(context.Background())
	if want := fmt.Sprintf("no answer: nobody listens on UDP port %d", terms.Port); err == nil || err.Error() != want || !errors.Is(err, errSilent) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestCount: tables end, however they are told.
func TestCount(t *testing.T) {
	row := func(column, n byte) []byte {
		return ber(0x30, ber(6, []byte{0x2b, 6, 1, 2, 1, 25, 3, 3, 1, column, n}), ber(6, []byte{0, 0}))
	}
	for _, tt := range []struct {
		name string
		rows func(asked int) [][]byte
		want int
		err  string
	}{
		{"two", func(int) [][]byte { return [][]byte{row(1, 1), row(1, 2), row(2, 1)} }, 2, ""},
		{"two at a time", func(asked int) [][]byte {
			if asked < 3 {
				return [][]byte{row(1, byte(2*asked)), row(1, byte(2*asked+1))}
			}
			return [][]byte{row(2, 1)}
		}, 6, ""},
		{"none", func(int) [][]byte { return [][]byte{row(2, 1)} }, 0, ""},
		{"the end", func(int) [][]byte { return [][]byte{row(1, 1), ber(0x30, row(1, 1)[2:15], []byte{0x82, 0})} }, 1, ""},
		{"the same", func(int) [][]byte { return [][]byte{row(1, 1)} }, 0, "the table 1.3.6.1.2.1.25.3.3.1.1 does not end"},
		{"without end", func(asked int) [][]byte {
			all := make([][]byte, 100)
			for i := range all {
				all[i] = row(1, byte(1+i%2))
			}
			return all
		}, 0, "more than 4096 rows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := -1
			h := startHost(t, func(request []byte) [][]byte {
				asked++
				return [][]byte{reply(request, func(id []byte) []byte { return response(id, 0, tt.rows(asked)...) })}
			})
			terms := h.terms()
			terms.Timeout = 5 * time.Second
			s, err := open(context.Background(), loopback, terms, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			n, err := s.count(oidProcessor)
			if tt.err == "" && (err != nil || n != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%d, %v; want %d, %s", n, err, tt.want, tt.err)
			}
		})
	}
}
