package arena_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

// A memory is a disk.File in memory.
type memory struct {
	mu    sync.RWMutex
	b     []byte // guarded by mu
	syncs int    // guarded by mu
}

var errOutside = errors.New("outside of the file")

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < 0 || off > int64(len(m.b)) {
		return 0, errOutside
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off < 0 || off+int64(len(p)) > int64(len(m.b)) {
		return 0, errOutside
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return nil
}

func (m *memory) Size() int64 { return int64(len(m.b)) }

// golden returns a file that plan9port's programs wrote, unpacked if it is
// compressed, or skips the test.
func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		for root, _ := os.Getwd(); ; root = filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				dir = filepath.Join(root, "../shared")
				break
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "golden", name))
	if errors.Is(err, os.ErrNotExist) {
		tb.Skipf("no golden data: %v", err)
	}
	if err == nil && strings.HasSuffix(name, ".gz") {
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(r)
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func openPartition(tb testing.TB, b []byte) (*arena.Partition, *memory) {
	tb.Helper()
	f := &memory{b: b}
	p, err := arena.OpenPartition(f)
	if err != nil {
		tb.Fatal(err)
	}
	return p, f
}

func openArena(tb testing.TB, p *arena.Partition, i int) (*arena.Arena, arena.Trailer) {
	tb.Helper()
	a, err := p.OpenArena(i)
	if err != nil {
		tb.Fatal(err)
	}
	t, err := a.ReadTrailer()
	if err != nil {
		tb.Fatal(err)
	}
	return a, t
}

// goldenSets are the golden partitions, and what describes them.
var goldenSets = []struct{ name, arenas, clumps string }{
	{"v4", "v4/arenas.jsonl", "v4/clumps.tsv.gz"},
	{"v5", "v5/arenas.jsonl", "v5/clumps.tsv.gz"},
	{"dirty", "dirty/arenas-before.jsonl", "dirty/clumps.tsv.gz"},
}

// TestGoldenStructures reads the headers and trailers of what plan9port
// wrote, compares them with their description and writes them again.
func TestGoldenStructures(t *testing.T) {
	for _, set := range goldenSets {
		t.Run(set.name, func(t *testing.T) {
			want := golden(t, set.name+"/arenas.gz")
			p, f := openPartition(t, bytes.Clone(want))
			lines := bytes.Split(bytes.TrimSpace(golden(t, set.arenas)), []byte("\n"))
			var part struct {
				Blocksize int
				Arenabase int64
				Map       [][3]any
			}
			if err := json.Unmarshal(lines[0], &part); err != nil {
				t.Fatal(err)
			}
			if p.BlockSize != part.Blocksize || p.ArenaBase != part.Arenabase || len(p.Arenas) != len(part.Map) {
				t.Errorf("partition of %d arenas at %d, blocks of %d, want %+v", len(p.Arenas), p.ArenaBase, p.BlockSize, part)
			}
			for i, line := range lines[1:] {
				var w struct {
					Version         int
					Name            string
					Blocksize       int
					Clumpmagic      string
					Clumps, Cclumps uint32
					Ctime, Wtime    uint32
					Used, Uncsize   int64
					Sealed          int
					Ext             []int64
					Score           venti.Score
					Start, Stop     int64
				}
				if err := json.Unmarshal(line, &w); err != nil {
					t.Fatal(err)
				}
				a, got := openArena(t, p, i)
				if a.Start != w.Start || a.Stop != w.Stop || a.BlockSize != w.Blocksize {
					t.Errorf("arena %d is %+v, want %+v", i, a.Extent, w)
				}
				disk := arena.Stats{Clumps: w.Clumps, CClumps: w.Cclumps, Used: w.Used, UncSize: w.Uncsize, Sealed: w.Sealed != 0}
				mem := disk
				if w.Ext != nil {
					mem = arena.Stats{Clumps: uint32(w.Ext[0]), CClumps: uint32(w.Ext[1]), Used: w.Ext[2], UncSize: w.Ext[3], Sealed: w.Ext[4] != 0}
				}
				magic, err := strconv.ParseUint(w.Clumpmagic, 0, 32)
				if err != nil {
					t.Fatal(err)
				}
				wantT := arena.Trailer{
					Version: w.Version, Name: w.Name, ClumpMagic: uint32(magic), CTime: w.Ctime, WTime: w.Wtime,
					Disk: disk, Mem: mem, Seal: w.Score,
				}
				if got != wantT {
					t.Errorf("trailer %d is %+v, want %+v", i, got, wantT)
				}
				if err := a.CheckHeader(); err != nil {
					t.Error(err)
				}
				if err := a.WriteTrailer(&got); err != nil {
					t.Error(err)
				}
				// A trailer that is written to an empty block has the same bytes too.
				block := make([]byte, a.BlockSize)
				got.Pack(block)
				if !bytes.Equal(block, want[a.Stop-int64(a.BlockSize):a.Stop]) {
					t.Errorf("trailer %d packed again has other bytes", i)
				}
			}
			if !bytes.Equal(f.b, want) {
				t.Error("rewriting the trailers changed the partition")
			}
		})
	}
}

// TestGoldenClumps scans what plan9port wrote and compares every clump with
// its description and with the directory, then writes the directory again.
func TestGoldenClumps(t *testing.T) {
	for _, set := range goldenSets {
		t.Run(set.name, func(t *testing.T) {
			want := golden(t, set.name+"/arenas.gz")
			p, f := openPartition(t, bytes.Clone(want))
			list := bufio.NewScanner(bytes.NewReader(golden(t, set.clumps)))
			list.Scan() // the names of the columns
			var e arena.Encoder
			for i := range p.Arenas {
				a, tr := openArena(t, p, i)
				infos := make([]arena.ClumpInfo, tr.Mem.Clumps)
				if err := a.ReadInfos(infos, 0); err != nil {
					t.Fatal(err)
				}
				var stats arena.Stats
				end, err := a.Scan(t.Context(), arena.Pos{}, -1, func(c *arena.Clump) error {
					if c.Err != nil && c.Header.Type.Valid() {
						t.Errorf("%s: clump %d: %v", a.Name, c.Clump, c.Err)
					}
					if c.Clump >= len(infos) || infos[c.Clump] != c.Header.ClumpInfo {
						t.Errorf("%s: clump %d is %+v, and the directory has another", a.Name, c.Clump, c.Header)
					}
					list.Scan()
					got := fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%v\t%d", a.Name, c.Off, c.Header.Type, c.Header.Encoding,
						c.Header.Size, c.Header.UncSize, c.Header.Score, c.Header.Time)
					col := strings.Split(list.Text(), "\t")
					if want := strings.Join(append(col[:2:2], col[3:]...), "\t"); got != want {
						t.Errorf("got clump %s, want %s", got, want)
					}
					// The same lump makes the same clump.
					off := a.Base() + c.Off
					if c.Err == nil {
						h := c.Header
						b := e.Append(nil, &h, c.Data, arena.Whack)
						if !bytes.Equal(b, want[off:off+c.Header.LogSize()]) {
							t.Errorf("%s: clump %d made again has other bytes", a.Name, c.Clump)
						}
					}
					stats.Add(&c.Header.ClumpInfo)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				stats.Sealed = tr.Mem.Sealed
				if stats != tr.Mem || end.Pos != tr.Mem.End() {
					t.Errorf("%s: scan counts %+v and ends %+v, trailer has %+v", a.Name, stats, end, tr.Mem)
				}
				t.Logf("%s: %d clumps, then %v", a.Name, stats.Clumps, end.Reason)
				if err := a.WriteInfos(infos, 0); err != nil {
					t.Error(err)
				}
			}
			if list.Scan() {
				t.Errorf("clump not found: %s", list.Text())
			}
			if !bytes.Equal(f.b, want) {
				t.Error("rewriting the directories changed the partition")
			}
		})
	}
}

// TestGoldenSeals computes the seal of every arena that plan9port sealed.
func TestGoldenSeals(t *testing.T) {
	sealed := 0
	for _, set := range goldenSets {
		p, _ := openPartition(t, golden(t, set.name+"/arenas.gz"))
		for i := range p.Arenas {
			a, tr := openArena(t, p, i)
			if !tr.Disk.Sealed {
				continue
			}
			got, err := a.Sum(t.Context())
			if err != nil || got != tr.Seal {
				t.Errorf("%s: sum %v, %v, want %v", a.Name, got, err, tr.Seal)
			}
			sealed++
		}
	}
	if sealed != 5 {
		t.Errorf("%d sealed arenas, want 5", sealed)
	}
}

// TestGoldenFormat formats as plan9port did, with the same magics, and
// compares all bytes.
func TestGoldenFormat(t *testing.T) {
	want := golden(t, "v5/empty/arenas.gz")
	p, _ := openPartition(t, want)
	var magics []byte
	for i := range p.Arenas {
		a, _ := openArena(t, p, i)
		magics = append(magics, byte(a.ClumpMagic>>24), byte(a.ClumpMagic>>16), byte(a.ClumpMagic>>8), byte(a.ClumpMagic))
	}
	f := &memory{b: make([]byte, len(want))}
	_, err := arena.Format(t.Context(), f, arena.FormatConfig{Name: "g1arena", ArenaSize: 1 << 20, Rand: bytes.NewReader(magics)})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.b, want) {
		t.Error("formatted partition has other bytes than plan9port's")
	}
}
