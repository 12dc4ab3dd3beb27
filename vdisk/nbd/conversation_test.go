package nbd_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"strata/vdisk/nbd"
)

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

// talkDisk is the disk of conversations: 4096 bytes, "strata" at 512, and from
// 1024 to 1536 what is not zero.
func talkDisk() []byte {
	b := make([]byte, 4096)
	copy(b[512:], "strata")
	for i := 1024; i < 1536; i++ {
		b[i] = 0xab
	}
	return b
}

// TestConversations replays testdata/conversations against a server. In a
// file, C lines are bytes of the client and S lines bytes of the server; "eof"
// is the end of what it says. The server must say exactly what the file says,
// and nothing else. Names that the notation knows stand for what every
// message begins with.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	names := strings.NewReplacer(
		"GREETING", `"NBDMAGICIHAVEOPT" 0003`,
		"OPTION", `"IHAVEOPT"`,
		"OPTREPLY", "0003e889045565a9",
		"REQUEST", "25609513",
		"SIMPLE", "67446698",
		"CHUNK", "668e33ef",
	)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			plain, rich := &memDisk{data: talkDisk()}, &richDisk{memDisk{data: talkDisk()}}
			addr, _ := serve(t, exports{
				"":     {Disk: &memDisk{data: talkDisk()}, ReadOnly: true, Description: "the default"},
				"disk": {Disk: rich, PreferredBlock: 8192},
				"file": {Disk: plain, Shared: true},
			}, nbd.Config{})
			nc, err := net.Dial("unix", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
			for i, line := range strings.Split(string(text), "\n") {
				if line == "" || line[0] == '#' {
					continue
				}
				who, rest, _ := strings.Cut(line, " ")
				if rest == "eof" && who == "C" {
					nc.(*net.UnixConn).CloseWrite()
					continue
				}
				if rest == "eof" {
					if n, err := nc.Read(make([]byte, 1)); err != io.EOF {
						t.Fatalf("line %d: got %d bytes, %v, want the end", i+1, n, err)
					}
					continue
				}
				b, err := parseBytes(names.Replace(rest))
				if err != nil {
					t.Fatalf("line %d: %v", i+1, err)
				}
				if who == "C" {
					if _, err := nc.Write(b); err != nil {
						t.Fatalf("line %d: %v", i+1, err)
					}
					continue
				}
				got := make([]byte, len(b))
				n, err := io.ReadFull(nc, got)
				if !bytes.Equal(got[:n], b) {
					t.Fatalf("line %d: got %q, %v\nwant %q", i+1, got[:n], err, b)
				}
			}
		})
	}
}
