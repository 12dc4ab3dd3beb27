package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
)

// talkConfig is a partition's that believes its clients.
const talkConfig = "fsys main config *\nopen -AV\ncreate /active/tmp adm adm d777\n"

// TestTalk has a conversation with the daemon.
func TestTalk(t *testing.T) {
	talk, err := filepath.Abs("testdata/talk.txt") // before newPartition goes elsewhere
	if err != nil {
		t.Fatal(err)
	}
	newPartition(t, talkConfig)
	p := start(t, 1, "-f", "part", "-a", "unix!f.sock", "--console", "none")
	conn, err := net.Dial("unix", "f.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	ninetest.Replay(t, conn, talk)
	if status := p.stop(); status != 0 {
		t.Errorf("status %d: %s", status, p.stderr)
	}
}

// TestNonsense sends what is no message: each gets an error, where the
// original says nothing, and the next message its answer.
func TestNonsense(t *testing.T) {
	newPartition(t, talkConfig)
	start(t, 1, "-f", "part", "-a", "unix!f.sock", "--console", "none")
	conn, err := net.Dial("unix", "f.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	frame := func(typ ninep.Type, tag uint16, body ...byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(7+len(body)))
		b = append(b, byte(typ))
		return append(binary.LittleEndian.AppendUint16(b, tag), body...)
	}
	ask := func(b []byte) ninep.Fcall {
		t.Helper()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatal(err)
		}
		reply := append(head, make([]byte, binary.LittleEndian.Uint32(head)-4)...)
		if _, err := io.ReadFull(conn, reply[4:]); err != nil {
			t.Fatal(err)
		}
		var f ninep.Fcall
		if err := f.Unpack(reply, ninep.Classic); err != nil {
			t.Fatal(err)
		}
		return f
	}
	pack := func(f ninep.Fcall) []byte {
		t.Helper()
		b, err := f.Pack(nil, ninep.Classic)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	version := pack(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: "9P2000"})
	if r := ask(version); r.Type != ninep.Rversion {
		t.Fatalf("got %s", r.Text(ninep.Classic))
	}
	// fid, newfid, and seventeen names where sixteen are allowed.
	walk := append([]byte{1, 0, 0, 0, 2, 0, 0, 0, 17, 0}, bytes.Repeat([]byte{1, 0, 'x'}, 17)...)
	for name, b := range map[string][]byte{
		"a walk of 17 names":       frame(ninep.Twalk, 5, walk...),
		"a walk that ends early":   frame(ninep.Twalk, 5, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0, 'x'),
		"an unknown message":       frame(98, 5, 1, 2, 3),
		"a reply":                  frame(ninep.Rclunk, 5),
		"a name beyond its frame":  frame(ninep.Tcreate, 5, 1, 0, 0, 0, 255, 255, 'x', 0, 0, 0, 0, 0),
		"one that is empty":        frame(ninep.Tread, 5),
		"bytes behind its end":     frame(ninep.Tclunk, 5, 1, 0, 0, 0, 9, 9, 9),
		"a message of Linux's own": frame(ninep.Tgetattr, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
	} {
		if r := ask(b); r.Type != ninep.Rerror || r.Tag != 5 || r.Ename == "" {
			t.Errorf("%s: got %s", name, r.Text(ninep.Classic))
		}
	}
	if r := ask(pack(ninep.Fcall{Type: ninep.Tattach, Tag: 5, Fid: 1, Afid: ninep.NoFid, Uname: "glenda"})); r.Type != ninep.Rattach {
		t.Errorf("afterwards: got %s", r.Text(ninep.Classic))
	}
}
