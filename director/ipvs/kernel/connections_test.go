package kernel

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const titles = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"

func TestReadConnections(t *testing.T) {
	text := titles +
		"TCP C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED     899\n" +
		"UDP C6336407 0000 C0000201 13C4 0A00020B 13C4 ASSURED         299 sip 12345@host\n" +
		"TCP C6336407 0000 C0000201 0050 0A00020B 1F90 NONE              0 sip a@b more columns\n" +
		"TCP C6336407 0000 C0000201 0014 0A00020B 0014 SYN_RECV         59\n" + // FTP's data
		"IP  C6336400 0000 80000005 0000 0A00020B 0000 NONE            300\n" +
		"SCTP C6336407 9C40 C0000201 0B59 0A00020B 0B59 INIT1           10\n" +
		"TCP 2001:0db8:0000:0000:0000:0000:0000:0007 9C40 2001:0db8:0000:0000:0000:0000:0000:0001 0050 0A00020B 1F90 FIN_WAIT         7\n" +
		"IP  2001:0db8:0000:0000:0000:0000:0000:0000 0000 0000:0009:0000:0000:0000:0000:0000:0000 0000 2001:0db8:0000:0000:0000:0000:0000:0009 0000 NONE 7\n" +
		"ICMPv6 0000:0000:0000:0000:0000:0000:0000:0001 0000 2001:0db8:0000:0000:0000:0000:0000:0001 0050 2001:0db8:0000:0000:0000:0000:0000:0009 0000 ERR! 7\n" +
		"IP_47 C6336407 0000 C0000201 0000 0A00020B 0000 ERR!            10\n"
	client, virtual, server := at("198.51.100.7:40000"), at("192.0.2.1:80"), at("10.0.2.11:8080")
	want := []Connection{
		{Protocol: TCP, Client: client, Virtual: virtual, Server: server, State: "ESTABLISHED", Expires: 899 * time.Second},
		{
			Protocol: UDP, Client: at("198.51.100.7:0"), Virtual: at("192.0.2.1:5060"), Server: at("10.0.2.11:5060"),
			State: "ASSURED", Expires: 299 * time.Second, Template: true, Engine: "sip", EngineData: "12345@host",
		},
		{Protocol: TCP, Client: at("198.51.100.7:0"), Virtual: virtual, Server: server, State: "NONE", Template: true, Engine: "sip", EngineData: "a@b"},
		{Protocol: TCP, Client: at("198.51.100.7:0"), Virtual: at("192.0.2.1:20"), Server: at("10.0.2.11:20"), State: "SYN_RECV", Expires: 59 * time.Second},
		{Client: at("198.51.100.0:0"), Virtual: at("0.0.0.0:0"), Mark: 1<<31 + 5, Server: at("10.0.2.11:0"), State: "NONE", Expires: 300 * time.Second, Template: true},
		{Protocol: SCTP, Client: client, Virtual: at("192.0.2.1:2905"), Server: at("10.0.2.11:2905"), State: "INIT1", Expires: 10 * time.Second},
		{Protocol: TCP, Client: at("[2001:db8::7]:40000"), Virtual: at("[2001:db8::1]:80"), Server: server, State: "FIN_WAIT", Expires: 7 * time.Second},
		{Client: at("[2001:db8::]:0"), Virtual: at("[::]:0"), Mark: 9, Server: at("[2001:db8::9]:0"), State: "NONE", Expires: 7 * time.Second, Template: true},
		{Protocol: 58, Client: at("[::1]:0"), Virtual: at("[2001:db8::1]:80"), Server: at("[2001:db8::9]:0"), State: "ERR!", Expires: 7 * time.Second},
		{Protocol: 47, Client: at("198.51.100.7:0"), Virtual: at("192.0.2.1:0"), Server: at("10.0.2.11:0"), State: "ERR!", Expires: 10 * time.Second},
	}
	var got []Connection
	for c, err := range ReadConnections(iotest.OneByteReader(strings.NewReader(text))) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
	}
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
	for range ReadConnections(strings.NewReader(text)) {
		break // whoever has seen enough may stop
	}
}

func TestReadConnectionsNamesTheLine(t *testing.T) {
	good := "TCP C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED     899\n"
	for line, want := range map[string]string{
		"TCP C6336407 9C40": "3 columns, want 9",
		"XYZ C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 899":       "unknown protocol",
		"IP_256 C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 899":    "unknown protocol",
		"TCP C63364 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 899":         "address of 3 octets",
		"TCP C633640G 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 899":       `address "C633640G"`,
		"TCP C6336407 19C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 899":      "port: ",
		"TCP C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED -1":        "time to live: ",
		"TCP ::1 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 1":              "client and virtual address are of two families",
		"TCP ::1%eth0 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 1":         `"::1%eth0" is no address`,
		"TCP 1:2 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED 1":              "1:2",
		"TCP C6336407 9C40 C0000201 0050 " + strings.Repeat("A", maxLine+100): "token too long",
	} {
		n := 0
		var failure error
		for _, err := range ReadConnections(strings.NewReader(titles + good + line + "\n" + good)) {
			if n++; err != nil {
				failure = err
			}
		}
		if failure == nil || n != 2 || !strings.HasPrefix(failure.Error(), "/proc/net/ip_vs_conn:3: ") || !strings.Contains(failure.Error(), want) {
			t.Errorf("%d lines, then %.200v, want line 3 and %q", n-1, failure, want)
		}
	}
	for _, err := range ReadConnections(strings.NewReader("something else\n" + good)) {
		if err == nil || !strings.Contains(err.Error(), "/proc/net/ip_vs_conn:1: ") {
			t.Errorf("without titles: %v", err)
		}
	}
	for range ReadConnections(strings.NewReader("")) {
		t.Error("an empty file has connections")
	}
	broken := errors.New("disk on fire")
	for _, err := range ReadConnections(io.MultiReader(strings.NewReader(titles), iotest.ErrReader(broken))) {
		if !errors.Is(err, broken) {
			t.Errorf("%v, want the reader's error", err)
		}
	}
}

// FuzzReadConnections: no text panics, and after an error there is nothing.
func FuzzReadConnections(f *testing.F) {
	f.Add("TCP C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED     899\n")
	f.Add("IP  2001:db8:: 0000 0000:0009:: 0000 ::9 0000 NONE 7 sip a@b\n")
	f.Fuzz(func(t *testing.T, text string) {
		failed := false
		for c, err := range ReadConnections(strings.NewReader(titles + text)) {
			if failed {
				t.Fatal("something came after an error")
			}
			if failed = err != nil; !failed && (!c.Client.IsValid() || !c.Virtual.IsValid() || !c.Server.IsValid() || c.Expires < 0) {
				t.Errorf("%q is taken for %+v", text, c)
			}
		}
	})
}
