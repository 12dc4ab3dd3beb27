package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/vdisk/nbd"
)

// A script is a connection of which all that the client says is known.
type script struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)         { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)        { return s.out.Write(p) }
func (s *script) Close() error                       { return nil }
func (s *script) LocalAddr() net.Addr                { return &net.UnixAddr{} }
func (s *script) RemoteAddr() net.Addr               { return &net.UnixAddr{} }
func (s *script) SetDeadline(t time.Time) error      { return nil }
func (s *script) SetReadDeadline(t time.Time) error  { return nil }
func (s *script) SetWriteDeadline(t time.Time) error { return nil }

// play returns what the server says to a client.
func play(said []byte) []byte {
	s := &script{in: bytes.NewReader(said)}
	srv := nbd.NewServer(exports{
		"":     {Disk: &memDisk{data: talkDisk()}, ReadOnly: true},
		"disk": {Disk: &richDisk{memDisk{data: talkDisk()}}},
		"file": {Disk: &memDisk{data: talkDisk()}, Shared: true},
	}, nbd.Config{})
	srv.ServeConn(context.Background(), s)
	return s.out.Bytes()
}

// agreed is how a client gets to requests with all there is.
func agreed(export string) []byte {
	b := []byte{0, 0, 0, 3}
	option := func(n uint32, data string) {
		b = append(b, "IHAVEOPT"...)
		b = binary.BigEndian.AppendUint32(b, n)
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	name := string(binary.BigEndian.AppendUint32(nil, uint32(len(export)))) + export
	option(8, "")
	option(10, name+"\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation")
	option(7, name+"\x00\x00")
	return b
}

// FuzzHaggle lets a client say anything. Up to where requests begin, all that
// the server says must be replies to options.
func FuzzHaggle(f *testing.F) {
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	names := strings.NewReplacer("OPTION", `"IHAVEOPT"`, "REQUEST", "25609513")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var said []byte
		for line := range strings.Lines(string(text)) {
			rest, ok := strings.CutPrefix(strings.TrimSpace(line), "C ")
			if !ok || rest == "eof" {
				continue
			}
			b, err := parseBytes(names.Replace(rest))
			if err != nil {
				f.Fatal(err)
			}
			said = append(said, b...)
		}
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		got := play(said)
		if !bytes.HasPrefix(got, []byte("NBDMAGICIHAVEOPT\x00\x03")) {
			t.Fatalf("greeting %q", got[:min(len(got), 20)])
		}
		for got = got[18:]; len(got) >= 20 && binary.BigEndian.Uint64(got) == 0x0003e889045565a9; {
			typ, n := binary.BigEndian.Uint32(got[12:]), binary.BigEndian.Uint32(got[16:])
			if int(n) > len(got)-20 || typ == 0 || 4 < typ && typ <= 1<<31 || typ > 1<<31+10 {
				t.Fatalf("reply of type %#x and %d bytes, of which %d are there", typ, n, len(got)-20)
			}
			got = got[20+n:]
		}
	})
}

// FuzzRequests lets a client request anything, with structured replies. All
// chunks must be well formed, and each reply end once.
func FuzzRequests(f *testing.F) {
	request := func(flags, typ uint16, cookie, off uint64, n uint32, data string) []byte {
		b := []byte{0x25, 0x60, 0x95, 0x13}
		b = binary.BigEndian.AppendUint16(b, flags)
		b = binary.BigEndian.AppendUint16(b, typ)
		b = binary.BigEndian.AppendUint64(b, cookie)
		b = binary.BigEndian.AppendUint64(b, off)
		b = binary.BigEndian.AppendUint32(b, n)
		return append(b, data...)
	}
	all := bytes.Join([][]byte{
		request(0, 0, 1, 0, 4096, ""),
		request(4, 0, 2, 100, 1000, ""),
		request(1, 1, 3, 5, 4, "data"),
		request(0, 3, 4, 0, 0, ""),
		request(0, 4, 5, 0, 512, ""),
		request(0, 5, 6, 0, 512, ""),
		request(2, 6, 7, 0, 512, ""),
		request(16, 6, 8, 0, 512, ""),
		request(0, 7, 9, 0, 4096, ""),
		request(8, 7, 10, 77, 4096, ""),
		request(0, 2, 0, 0, 0, ""),
	}, nil)
	for i := range 3 {
		f.Add(byte(i), all)
	}
	f.Add(byte(1), request(0, 1, 1, 0, 1<<31, "x"))
	f.Fuzz(func(t *testing.T, which byte, said []byte) {
		start := agreed([]string{"", "disk", "file"}[which%3])
		before := len(play(start))
		got := play(append(start, said...))[before:]
		// How many replies each cookie is good for.
		want := map[uint64]int{}
		for len(said) >= 28 && bytes.HasPrefix(said, []byte("\x25\x60\x95\x13")) {
			typ, cookie, n := binary.BigEndian.Uint16(said[6:]), binary.BigEndian.Uint64(said[8:]), uint64(binary.BigEndian.Uint32(said[24:]))
			said = said[28:]
			if typ == 2 || typ == 1 && (n > 32<<20 || n > uint64(len(said))) {
				break
			}
			if typ == 1 {
				said = said[n:]
			}
			want[cookie]++
		}
		for len(got) > 0 {
			if len(got) < 20 || binary.BigEndian.Uint32(got) != 0x668e33ef {
				t.Fatalf("no chunk: %q", got[:min(len(got), 100)])
			}
			flags, typ := binary.BigEndian.Uint16(got[4:]), binary.BigEndian.Uint16(got[6:])
			cookie, n := binary.BigEndian.Uint64(got[8:]), int(binary.BigEndian.Uint32(got[16:]))
			if n > len(got)-20 {
				t.Fatalf("chunk of %d bytes, of which %d are there", n, len(got)-20)
			}
			body := got[20 : 20+n]
			got = got[20+n:]
			ok := false
			switch typ {
			case 0:
				ok = n == 0 && flags == 1
			case 1:
				ok = n >= 9
			case 2:
				ok = n == 12 && binary.BigEndian.Uint32(body[8:]) > 0
			case 5:
				ok = n >= 12 && n%8 == 4
			case 0x8001:
				ok = n >= 6 && 6+int(binary.BigEndian.Uint16(body[4:])) == n && binary.BigEndian.Uint32(body) != 0
			case 0x8002:
				ok = n >= 14 && 14+int(binary.BigEndian.Uint16(body[4:])) == n && binary.BigEndian.Uint32(body) != 0
			}
			if !ok || flags > 1 {
				t.Fatalf("bad chunk: type %d, flags %#x, %q", typ, flags, body[:min(n, 100)])
			}
			if flags == 1 {
				want[cookie]--
			}
		}
		for cookie, n := range want {
			if n != 0 {
				t.Errorf("cookie %#x has %d replies too few", cookie, n)
			}
		}
	})
}
