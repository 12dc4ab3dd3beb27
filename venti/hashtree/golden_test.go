package hashtree_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// golden opens a file of the golden data, which the original programs made,
// or skips the test. It unpacks .gz.
func golden(t testing.TB, name string) io.Reader {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	for up := "."; dir == "" && len(up) < 50; up = filepath.Join(up, "..") {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			dir = filepath.Join(up, "..", "shared")
		}
	}
	f, err := os.Open(filepath.Join(dir, "golden", name))
	if os.IsNotExist(err) {
		t.Skipf("no golden data: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if !strings.HasSuffix(name, ".gz") {
		return f
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// goldenFiles returns the files of a tar by the SHA-1 of their contents, and
// by name.
func goldenFiles(t testing.TB, name string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for r := tar.NewReader(golden(t, name)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[venti.ScoreOf(data).String()] = data
		files[h.Name] = data
	}
}

// TestGoldenVac gives every file that plan9port's vac stored the tree that it
// gave it.
func TestGoldenVac(t *testing.T) {
	for _, tc := range []struct{ tree, files string }{
		{"tree8k", "tree"}, {"tree1k", "tree"}, {"exact-8k", "exact"}, {"exact-1k", "exact"},
	} {
		t.Run(tc.tree, func(t *testing.T) {
			files := goldenFiles(t, tc.files+".tar.gz")
			st := ventitest.NewMemory()
			n, deepest := 0, 0
			lines := bufio.NewScanner(golden(t, "v5/trees/"+tc.tree+".tree.jsonl.gz"))
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				var line struct {
					Kind, Path, SHA1 string
					Data             struct {
						PSize, DSize, Depth int
						Size                int64
						Score               venti.Score
						Dir                 bool
					}
				}
				if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
					t.Fatal(err)
				}
				data, ok := files[line.SHA1]
				if line.Kind != "file" || line.Data.Dir || !ok {
					continue
				}
				n++
				want := venti.Entry{
					PSize: line.Data.PSize, DSize: line.Data.DSize, Depth: line.Data.Depth,
					Flags: venti.EntryActive, Size: line.Data.Size, Score: line.Data.Score,
				}
				deepest = max(deepest, want.Depth)
				cfg := hashtree.Config{DSize: want.DSize} // vac's PSize is the default
				got, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), cfg)
				if err != nil || got != want {
					t.Errorf("%s: Write: got %+v, %v; want %+v", line.Path, got, err, want)
				}
				w, err := hashtree.NewWriter(t.Context(), st, cfg)
				if err != nil {
					t.Fatal(err)
				}
				w.Write(data)
				if got, _, err := w.Close(); err != nil || got != want {
					t.Errorf("%s: Writer: got %+v, %v; want %+v", line.Path, got, err, want)
				}
			}
			if err := lines.Err(); err != nil {
				t.Fatal(err)
			}
			if n < 50 || deepest < 2 && tc.files == "tree" {
				t.Errorf("only %d files, up to depth %d, were compared", n, deepest)
			}
		})
	}
}

// TestGoldenWritefile makes the root that plan9port's writefile made.
func TestGoldenWritefile(t *testing.T) {
	data, ok := goldenFiles(t, "tree.tar.gz")["tree/data/depth2-3.6M"]
	if !ok {
		t.Fatal("the tar lacks tree/data/depth2-3.6M")
	}
	st := ventitest.NewMemory()
	e, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), hashtree.Config{PSize: 8192, DSize: 8192})
	if err != nil {
		t.Fatal(err)
	}
	e.Flags |= venti.EntryLocal // a quirk of the original
	dir, err := e.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := venti.Root{Name: "data", Type: "file", Score: store(t, st, venti.DirType, dir), BlockSize: 8192}
	b, err := r.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	top := store(t, st, venti.RootType, b)
	scores, err := io.ReadAll(golden(t, "v5/scores.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("writefile file:%v\n", top); !strings.Contains(string(scores), want) {
		t.Errorf("scores.txt lacks %s", want)
	}
	e.Flags &^= venti.EntryLocal
	readBack(t, st, e, data)
}

// TestGoldenDump rebuilds an archive from what plan9port's dump printed of
// it, and prints it again.
func TestGoldenDump(t *testing.T) {
	want, err := io.ReadAll(golden(t, "v5/cli/dump-exact-stdin.txt"))
	if err != nil {
		t.Fatal(err)
	}
	st := ventitest.NewMemory()
	type block struct {
		indent int
		typ    venti.Type
		data   []byte
	}
	var open []block // each in the one before
	var last venti.Score
	end := func(indent int) {
		for len(open) > 0 && open[len(open)-1].indent >= indent {
			b := open[len(open)-1]
			open = open[:len(open)-1]
			last = store(t, st, b.typ, b.data)
		}
	}
	lines := strings.Split(strings.TrimSuffix(string(want), "\n"), "\n")
	for i, line := range lines {
		text := strings.TrimLeft(line, " ")
		indent := len(line) - len(text)
		var (
			e             venti.Entry
			r             venti.Root
			n, typ, flags int
			score, prev   string
			add           []byte
		)
		switch {
		case scan(text, "%40s root name= type=%s prev=%s bsize=%d", &score, &r.Type, &prev, &r.BlockSize):
			// Its directory is on the next line.
			err1 := r.Prev.UnmarshalText([]byte(prev))
			err2 := r.Score.UnmarshalText([]byte(strings.Fields(lines[i+1])[0]))
			add, err = r.Pack(nil)
			err = errors.Join(err1, err2, err)
			open = append(open, block{indent: indent, typ: venti.RootType})
		case scan(text, "%40s dir n=%d", &score, &n):
			end(indent)
			open = append(open, block{indent: indent, typ: venti.DirType})
		case scan(text, "%40s data n=%d", &score, &n):
			end(indent)
			open = append(open, block{indent: indent, typ: venti.DataType})
		case scan(text, "%d: gen=%d psize=%d dsize=%d type=%d flags=0x%x size=%d score=%s",
			&n, &e.Gen, &e.PSize, &e.DSize, &typ, &flags, &e.Size, &score):
			end(indent)
			e.Flags, e.Depth = uint8(flags), venti.Type(typ).Depth()
			if venti.Type(typ).Base() == venti.DirType {
				e.Flags |= venti.EntryDir
			}
			err1 := e.Score.UnmarshalText([]byte(score))
			add, err = e.Pack(nil)
			err = errors.Join(err1, err)
		default:
			add, err = hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		}
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		b := &open[len(open)-1]
		b.data = append(b.data, add...)
	}
	end(0)
	var got bytes.Buffer
	if err := hashtree.Dump(t.Context(), st, last, venti.RootType, &got); err != nil {
		t.Error(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func scan(text, format string, args ...any) bool {
	n, err := fmt.Sscanf(text, format, args...)
	return err == nil && n == len(args)
}
