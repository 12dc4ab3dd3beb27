package venti_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"strata/venti"
	"strata/venti/ventitest"
)

// A talk is one end of a raw connection to a server.
type talk struct {
	nc      *net.UnixConn
	in      *bufio.Reader
	framing int // bytes of a size field
}

func newTalk(t testing.TB, addr string) *talk {
	t.Helper()
	nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: addr, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return newTalkOver(t, nc)
}

func newTalkOver(t testing.TB, nc *net.UnixConn) *talk {
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
	return &talk{nc: nc, in: bufio.NewReader(nc), framing: 4}
}

// frame puts a size before b.
func (k *talk) frame(b []byte) []byte {
	if k.framing == 2 {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// message reads a message and returns it without its size.
func (k *talk) message() ([]byte, error) {
	head := make([]byte, k.framing)
	if _, err := io.ReadFull(k.in, head); err != nil {
		return nil, err
	}
	var n uint64
	for _, c := range head {
		n = n<<8 | uint64(c)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(k.in, b)
	return b, err
}

// parseBytes reads words in hexadecimal, words in quotes, and hex*count.
func parseBytes(text string) ([]byte, error) {
	var out []byte
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if text[0] == '"' {
			quoted, err := strconv.QuotedPrefix(text)
			if err != nil {
				return nil, err
			}
			s, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, err
			}
			out = append(out, s...)
			text = text[len(quoted):]
			continue
		}
		var word string
		word, text, _ = strings.Cut(text, " ")
		word, times, repeated := strings.Cut(word, "*")
		b, err := hex.DecodeString(word)
		if err != nil {
			return nil, err
		}
		n := 1
		if repeated {
			if n, err = strconv.Atoi(times); err != nil {
				return nil, err
			}
		}
		out = append(out, bytes.Repeat(b, n)...)
	}
	return out, nil
}

// TestConversations replays testdata/conversations against a server. In a
// file, T and R lines are messages to and from the server, without their
// sizes; t and r lines are bytes as they are, and may be "eof"; an s line sets
// how many bytes a size has from there on, which is 4 at first. The server must
// say exactly what the file says, in that order, and nothing else.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for name, st := range map[string]venti.Store{"memory": ventitest.NewMemory(), "plain": plain{ventitest.NewMemory()}} {
				t.Run(name, func(t *testing.T) { converse(t, st, string(text)) })
			}
		})
	}
}

func converse(t *testing.T, st venti.Store, text string) {
	k := newTalk(t, serve(t, st, venti.ServerConfig{}))
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		verb, rest := line[0], line[1:]
		var b []byte
		if rest != " eof" {
			var err error
			if b, err = parseBytes(rest); err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
		}
		switch verb {
		case 's':
			k.framing = int(b[0])
		case 'T':
			// The server may have seen enough and left.
			k.nc.Write(k.frame(b))
		case 't':
			if b == nil {
				k.nc.CloseWrite()
			} else {
				k.nc.Write(b)
			}
		case 'R':
			got, err := k.message()
			if err != nil {
				t.Fatalf("line %d: %v, want %.80x", i+1, err, b)
			}
			// The store without abilities says how long a block is; the other
			// may say that it is not empty.
			probe := []byte("read too small: asked for 0 need at least ")
			if !bytes.Equal(got, b) && !(bytes.Contains(got, probe) && bytes.Contains(b, probe)) {
				t.Fatalf("line %d: got %.80x %.80q, want %.80x", i+1, got, got, b)
			}
		case 'r':
			got := make([]byte, max(len(b), 1))
			n, err := io.ReadFull(k.in, got)
			if b == nil {
				if n != 0 || !isClosed(err) {
					t.Fatalf("line %d: got %x, %v, want the end", i+1, got[:n], err)
				}
			} else if !bytes.Equal(got, b) {
				t.Fatalf("line %d: got %q, %v, want %q", i+1, got[:n], err, b)
			}
		default:
			t.Fatalf("line %d: %q", i+1, line)
		}
	}
}

// isClosed tells whether err is the end of a connection and not a hang.
func isClosed(err error) bool {
	ne, ok := err.(net.Error)
	return err != nil && !(ok && ne.Timeout())
}

// golden returns the path of a golden file, and skips the test where there
// is none.
func golden(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = "../../shared" // beside the module
	}
	path := filepath.Join(dir, "golden", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no golden data: %v", err)
	}
	return path
}

// lines calls f with each line of a file that may be compressed.
func lines(t *testing.T, path string, f func(line []byte)) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var r io.Reader = file
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(file); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		f(line)
	}
}

// TestGoldenTranscripts says to our server what plan9port's clients said to
// theirs, and expects the same answers.
func TestGoldenTranscripts(t *testing.T) {
	dir := golden(t, "transcripts")
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) == "probes.jsonl" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			type line struct {
				Conn int
				Dir  string
				Kind string
				Hex  string
			}
			conns := map[int][]line{}
			st := ventitest.NewMemory()
			asked := map[byte]venti.Type{}
			lines(t, file, func(b []byte) {
				var l line
				if err := json.Unmarshal(b, &l); err != nil {
					t.Fatal(err)
				}
				conns[l.Conn] = append(conns[l.Conn], l)
				if l.Kind != "msg" {
					return
				}
				// What was read, our store must have.
				switch m := unhex(t, l.Hex)[4:]; m[0] {
				case 12:
					asked[m[1]] = venti.DiskType(m[22]).Type()
				case 13:
					st.WriteBlock(t.Context(), asked[m[1]], m[2:])
				}
			})
			addr := serve(t, st, venti.ServerConfig{})
			replies := 0
			for conn, said := range conns {
				if conn == 0 {
					continue // the command
				}
				k := newTalk(t, addr)
				got := map[byte][][]byte{} // read ahead of its turn, by tag
				for _, l := range said {
					b := unhex(t, l.Hex)
					switch {
					case l.Kind == "version" && l.Dir == "C>S", l.Kind == "msg" && l.Dir == "C>S":
						if _, err := k.nc.Write(b); err != nil {
							t.Fatal(err)
						}
					case l.Kind == "version":
						if _, err := k.in.ReadBytes('\n'); err != nil {
							t.Fatal(err)
						}
					case l.Kind == "msg":
						want := b[4:]
						tag := want[1]
						for len(got[tag]) == 0 {
							m, err := k.message()
							if err != nil {
								t.Fatalf("want %.80x: %v", want, err)
							}
							got[m[1]] = append(got[m[1]], m)
						}
						if m := got[tag][0]; !bytes.Equal(m, want) {
							t.Fatalf("got %.80x %.80q\nwant %.80x", m, m, want)
						}
						got[tag] = got[tag][1:]
						replies++
					}
				}
			}
			t.Logf("%d replies are the same", replies)
		})
	}
}

// TestGoldenProbes puts hand-made requests, to which plan9port's answers are
// known, and expects the same, or better where the specification says so.
func TestGoldenProbes(t *testing.T) {
	path := golden(t, "transcripts/probes.jsonl")
	badType := func(d byte) string { return fmt.Sprintf("\x01\x01\x00%cbad block type %d", 15+len(fmt.Sprint(d)), d) }
	badPacket := "\x01\x01\x00\x0abad packet"
	// better holds our answers, in order, where they are not the same.
	better := map[string][]string{
		"ping":                    {"\x03\x07"},
		"read zero score":         {"\x0d\x01"},
		"read count 0":            {"\x01\x01\x00\x2bread too small: asked for 0 need at least 1"},
		"write disktype 0":        {badType(0), badType(0)},
		"write disktype 10":       {badType(10), badType(10)},
		"write disktype 12":       {badType(12), badType(12)},
		"write disktype 14":       {badType(14), badType(14)},
		"unknown message type 20": {badPacket, "\x11\x02"},
		"auth0 (type 8)":          {badPacket, "\x11\x02"},
		"short read packet":       {badPacket, "\x11\x02"},
		"trailing junk on sync":   {badPacket, "\x11\x02"},
		"version in comment part": {"EOF", "EOF"},
		"zero-length message":     {"EOF", "EOF"},
		"one-byte message":        {"EOF", "EOF"},
	}
	st := ventitest.NewMemory()
	addr := serve(t, st, venti.ServerConfig{})
	n := 0
	lines(t, path, func(b []byte) {
		var probe struct {
			Name string
			Log  [][]string
		}
		if err := json.Unmarshal(b, &probe); err != nil {
			t.Fatal(err)
		}
		n++
		t.Run(probe.Name, func(t *testing.T) {
			k := newTalk(t, addr)
			ours, isBetter := better[probe.Name]
			var got [][]byte
			for _, l := range probe.Log {
				text, note := l[1], ""
				if len(l) > 2 {
					note = l[2]
				}
				hexPart, more, cut := strings.Cut(text, "...(")
				b := unhex(t, hexPart[:len(hexPart)&^1])
				if cut { // a long block of one byte
					total, _ := strconv.Atoi(strings.TrimSuffix(more, " bytes)"))
					b = append(b, bytes.Repeat([]byte{0x5a}, total-len(b))...)
				}
				if l[0] == "C>S" {
					if bytes.HasPrefix(b, []byte("\x00\x14\x04\x00\x00\x0202")) {
						k.framing = 2
					}
					k.nc.Write(b)
					continue
				}
				if strings.HasPrefix(note, "venti-") {
					if _, err := k.in.ReadBytes('\n'); err != nil {
						t.Fatal(err)
					}
					continue
				}
				var want []byte
				switch {
				case bytes.HasPrefix(b, []byte("\x00\x00\x00\x0f\x05")) && probe.Name != "version in comment part":
					want = b[4:] // the hello
				case isBetter:
					if ours[0] != "EOF" {
						want = []byte(ours[0])
					}
					ours = ours[1:]
				case len(b) > k.framing:
					want = b[k.framing:]
				}
				m, err := k.message()
				if want == nil {
					if !isClosed(err) {
						t.Fatalf("got %x, %v, want the end", m, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%v, want %q", err, want)
				}
				got = append(got, m)
				// Pipelined requests may be answered in any order.
				if strings.HasPrefix(probe.Name, "pipelined") || strings.HasPrefix(probe.Name, "same tag") {
					continue
				}
				if !bytes.Equal(m, want) {
					t.Fatalf("got %x %q\nwant %x %q", m, m, want, want)
				}
			}
			for _, l := range probe.Log {
				if l[0] != "S>C" || !strings.HasPrefix(probe.Name, "pipelined") && !strings.HasPrefix(probe.Name, "same tag") {
					continue
				}
				if b := unhex(t, l[1]); b[0] == 0 && !containsMessage(got, b[4:]) {
					t.Errorf("no reply %x", b)
				}
			}
		})
	})
	if n < 40 {
		t.Errorf("%d probes", n)
	}
}

func containsMessage(messages [][]byte, m []byte) bool {
	for _, got := range messages {
		if bytes.Equal(got, m) {
			return true
		}
	}
	return false
}
