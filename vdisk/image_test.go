package vdisk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// store is what tests make images by hand in.
type store struct {
	*ventitest.Memory
	t testing.TB
}

func (s store) write(t venti.Type, data []byte) venti.Score {
	s.t.Helper()
	score, err := s.WriteBlock(s.t.Context(), t, venti.Truncate(t, data))
	if err != nil {
		s.t.Fatal(err)
	}
	return score
}

func (s store) stream(data []byte, cfg hashtree.Config) venti.Entry {
	s.t.Helper()
	e, _, err := hashtree.Write(s.t.Context(), s, bytes.NewReader(data), int64(len(data)), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s store) root(kind string, entries ...venti.Entry) venti.Score {
	s.t.Helper()
	var dir []byte
	for i := range entries {
		var err error
		if dir, err = entries[i].Pack(dir); err != nil {
			s.t.Fatal(err)
		}
	}
	r := venti.Root{Type: kind, BlockSize: 4096, Score: s.write(venti.DirType, dir)}
	b, err := r.Pack(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.write(venti.RootType, b)
}

// TestOpenStream opens what other programs store as one stream.
func TestOpenStream(t *testing.T) {
	st := store{ventitest.NewMemory(), t}
	data := make([]byte, 100000)
	rand.New(rand.NewSource(1)).Read(data)
	for _, c := range []struct {
		kind    string
		data    []byte
		regions int
		free    bool
	}{
		{"file", data, 1, false}, {"ext2", data, 1, true}, {"rawdisk", data[:77], 1, false},
		{"file", nil, 0, false}, {"Odd Kind", data, 1, false},
	} {
		e := st.stream(c.data, hashtree.Config{DSize: 8192})
		e.Flags |= venti.EntryLocal // as plan9port leaves it
		score := st.root(c.kind, e)
		im, err := OpenText(t.Context(), st, c.kind+":"+score.String())
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(im, 0, im.Size()))
		if err != nil || !bytes.Equal(got, c.data) {
			t.Errorf("%s: got %d bytes, %v", c.kind, len(got), err)
		}
		l := im.Layout()
		if len(l.Regions) != c.regions {
			t.Errorf("%s: %d regions", c.kind, len(l.Regions))
		}
		for _, r := range l.Regions {
			if want := strings.ReplaceAll(c.kind, "Odd Kind", "unknown"); r.Kind != want || r.FreeOmitted != c.free {
				t.Errorf("%s: got %+v", c.kind, r)
			}
		}
		if _, err := l.Encode(); err != nil {
			t.Errorf("%s: %v", c.kind, err)
		}
		if rep, err := Verify(t.Context(), st, score, nil); err != nil || rep.Failed != 0 {
			t.Errorf("%s: verify: %+v, %v", c.kind, rep, err)
		}
		if rep, err := Compare(t.Context(), im, &memSource{data: c.data}); err != nil || rep.Failed != 0 {
			t.Errorf("%s: compare: %+v, %v", c.kind, rep, err)
		}
		if _, err := OpenText(t.Context(), st, "vdisk:"+score.String()); !errors.Is(err, ErrNotImage) {
			t.Errorf("%s as vdisk: got %v", c.kind, err)
		}
	}
}

// TestOpenRefuses opens what is no image, or an image that lies.
func TestOpenRefuses(t *testing.T) {
	st := store{ventitest.NewMemory(), t}
	leaf := hashtree.Config{DSize: maxDSize, PSize: psize}
	good, err := testLayout().Encode()
	if err != nil {
		t.Fatal(err)
	}
	layout := st.stream(good, leaf)
	var regions []venti.Entry
	for _, r := range testLayout().Regions {
		regions = append(regions, st.stream(make([]byte, r.Length), hashtree.Config{DSize: r.DSize, PSize: r.PSize}))
	}
	if _, err := Open(t.Context(), st, st.root(RootType, append([]venti.Entry{layout}, regions...)...)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	with := func(change func(e []venti.Entry)) []venti.Entry {
		e := append([]venti.Entry{layout}, regions...)
		change(e)
		return e
	}
	for _, c := range []struct {
		name    string
		kind    string
		entries []venti.Entry
		want    string
	}{
		{"no entries", RootType, nil, "no layout"},
		{"no regions", RootType, []venti.Entry{layout}, "0 entries for 3 regions"},
		{"too many", RootType, append(with(func([]venti.Entry) {}), layout), "4 entries for 3 regions"},
		{"no layout", RootType, regions, "decode layout"},
		{"layout not active", RootType, with(func(e []venti.Entry) { e[0].Flags = 0 }), "bad entry of the layout"},
		{"layout a directory", RootType, with(func(e []venti.Entry) { e[0].Flags |= venti.EntryDir }), "bad entry of the layout"},
		{"layout huge", RootType, with(func(e []venti.Entry) { e[0].Size = 1 << 40; e[0].Depth = 6 }), "bad entry of the layout"},
		{"layout shallow", RootType, with(func(e []venti.Entry) { e[0].Size = 900000; e[0].Depth = 0 }), "bad depth"},
		{"layout longer", RootType, with(func(e []venti.Entry) { e[0].Size++ }), "after top-level value"},
		{"region not active", RootType, with(func(e []venti.Entry) { e[2].Flags = 0 }), "does not agree"},
		{"region a directory", RootType, with(func(e []venti.Entry) { e[2].Flags |= venti.EntryDir }), "does not agree"},
		{"region longer", RootType, with(func(e []venti.Entry) { e[2].Size++ }), "does not agree"},
		{"region of other blocks", RootType, with(func(e []venti.Entry) { e[2].DSize = 4096 }), "does not agree"},
		{"region shallow", RootType, with(func(e []venti.Entry) { e[2].Depth = 0 }), "bad depth"},
		{"regions crossed", RootType, with(func(e []venti.Entry) { e[1], e[2] = e[2], e[1] }), "does not agree"},
		{"stream of two", "file", regions[:2], `of type "file"`},
		{"directory", "vac", with(func(e []venti.Entry) { e[0].Flags |= venti.EntryDir })[:1], `of type "vac"`},
	} {
		_, err := Open(t.Context(), st, st.root(c.kind, c.entries...))
		if !errors.Is(err, ErrNotImage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}

	short := st.write(venti.RootType, []byte("short"))
	if _, err := Open(t.Context(), st, short); !errors.Is(err, ErrNotImage) {
		t.Errorf("short root: got %v", err)
	}
	long, err := st.WriteBlock(t.Context(), venti.RootType, make([]byte, 500))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), st, long); !errors.Is(err, ErrNotImage) {
		t.Errorf("long root: got %v", err)
	}
	if _, err := Open(t.Context(), st, venti.Score{1}); !errors.Is(err, venti.ErrNotFound) || errors.Is(err, ErrNotImage) {
		t.Errorf("no root: got %v", err)
	}
	if _, err := OpenText(t.Context(), st, "vdisk:12"); err == nil {
		t.Error("a bad score is opened")
	}
}

// TestImageReads compares reads at all kinds of places with the disk.
func TestImageReads(t *testing.T) {
	src := mbrDisk()
	st := ventitest.NewMemory()
	res, err := Import(t.Context(), st, src, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Int63()
	rnd := rand.New(rand.NewSource(seed))
	size := int64(len(src.data))
	for range 500 {
		off, n := rnd.Int63n(size+1000), rnd.Intn(1<<rnd.Intn(20))
		got := make([]byte, n)
		m, err := im.ReadAt(got, off)
		want := src.data[min(off, size):min(off+int64(n), size)]
		if m != len(want) || !bytes.Equal(got[:m], want) || (m < n) != (err == io.EOF) || err != nil && err != io.EOF {
			t.Fatalf("seed %d: %d bytes at %d: got %d, %v, want %d", seed, n, off, m, err, len(want))
		}
	}
	if _, err := im.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("before the start: got %v", err)
	}

	// What NextData leaves out are zeros, and it gets to the end.
	covered := int64(0)
	for off := int64(0); ; {
		start, end, err := im.NextData(t.Context(), off)
		if err == io.EOF {
			start, end = size, size
		} else if err != nil {
			t.Fatal(err)
		}
		if start < off || end < start || len(venti.Truncate(venti.DataType, src.data[off:start])) != 0 {
			t.Fatalf("next data at %d: got %d to %d", off, start, end)
		}
		covered += end - start
		if off = end; off == size {
			break
		}
	}
	if covered > 1137*512+5*4096 {
		t.Errorf("%d bytes of data", covered)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := im.ReadAtContext(ctx, make([]byte, 100), 63*512); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
}

// TestVerifyFinds takes blocks away and says which pieces are lost.
func TestVerifyFinds(t *testing.T) {
	src := mbrDisk()
	st := ventitest.NewMemory()
	res, err := Import(t.Context(), st, src, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	rep, err := Verify(t.Context(), st, res.Score, func(done int64) { last = done })
	if err != nil || rep.Failed != 0 || rep.Blocks < 100 || rep.Bytes < 400000 {
		t.Fatalf("before: got %+v, %v", rep, err)
	}
	if last != int64(len(src.data)) {
		t.Errorf("progress ends at %d", last)
	}
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}

	// Two leaves of p1, and all of p2.
	p1, p2 := src.data[63*512:], src.data[2111*512:(2111+2000)*512]
	for _, off := range []int64{68 * 4096, 4096} {
		block := venti.Truncate(venti.DataType, p1[off:off+4096])
		st.Remove(venti.ScoreOf(block), venti.DataType)
	}
	var e2 venti.Entry
	for i, r := range im.layout.Regions {
		if r.Name == "p2" {
			e2 = im.entries[i]
		}
	}
	st.Remove(e2.Score, e2.Type())
	rep, err = Verify(t.Context(), st, res.Score, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []Failure
	for _, f := range rep.Failures {
		if !strings.Contains(f.Reason, "no such block") {
			t.Errorf("reason: %s", f.Reason)
		}
		got = append(got, Failure{Region: f.Region, Offset: f.Offset, Length: f.Length})
	}
	want := []Failure{
		{Region: "p1", Offset: 4096, Length: 4096},
		{Region: "p1", Offset: 68 * 4096, Length: 4096},
		{Region: "p2", Offset: 0, Length: int64(len(p2))},
	}
	if rep.Failed != 3 || !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := json.Marshal(rep); err != nil {
		t.Error(err)
	}

	// A store that fails otherwise ends it.
	faulty := ventitest.NewFaulty(st, ventitest.FailFrom(10))
	if _, err := Verify(t.Context(), faulty, res.Score, nil); !errors.Is(err, ventitest.ErrFault) {
		t.Errorf("a broken store: got %v", err)
	}
}

func TestCompareFinds(t *testing.T) {
	src := mbrDisk()
	st := ventitest.NewMemory()
	res, err := Import(t.Context(), st, src, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(m *memSource)
		want   []Failure
	}{
		{"same", func(m *memSource) {}, nil},
		{"a byte", func(m *memSource) { m.data[63*512+5000]++ }, []Failure{{Region: "p1", Offset: 4096, Length: 4096}}},
		{"in a hole", func(m *memSource) { m.data[63*512+800*512] = 1 }, []Failure{{Region: "p1", Offset: 100 * 4096, Length: 4096}}},
		{"a run", func(m *memSource) { clear(m.data[63*512+8192 : 63*512+8192+10000]) }, []Failure{{Region: "p1", Offset: 8192, Length: 12288}}},
		{"two partitions", func(m *memSource) { m.data[63*512+5000]++; m.data[2600*512]++ },
			[]Failure{{Region: "p1", Offset: 4096, Length: 4096}, {Region: "p2", Offset: (2600 - 2111) / 8 * 4096, Length: 4096}}},
		{"size", func(m *memSource) { m.data = m.data[:len(m.data)-1] }, []Failure{{Region: "disk", Length: 3*mib + 511}}},
		{"table", func(m *memSource) { m.data[446+8]++ }, []Failure{{Region: "disk", Length: 3*mib + 512}}},
	} {
		m := mbrDisk()
		c.change(m)
		rep, err := Compare(t.Context(), im, m)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		ok := len(rep.Failures) == len(c.want)
		for i := range c.want {
			if ok {
				f := rep.Failures[i]
				ok = f.Region == c.want[i].Region && f.Offset == c.want[i].Offset && f.Length == c.want[i].Length
			}
		}
		if !ok {
			t.Errorf("%s: got %+v, want %+v", c.name, rep.Failures, c.want)
		}
	}
}

// TestExportOver exports to a file that held more.
func TestExportOver(t *testing.T) {
	src := mbrDisk()
	st := ventitest.NewMemory()
	res, err := Import(t.Context(), st, src, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(name, bytes.Repeat([]byte("old"), 2*mib), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Export(t.Context(), im, f, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, src.data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}

	// What a device needs, on a file: zeros where the disk has holes, and the
	// rest left alone.
	if err := os.WriteFile(name, bytes.Repeat([]byte("old"), 2*mib), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := zeroHoles(t.Context(), im, f); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil || len(got) != 6*mib {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	if len(venti.Truncate(venti.DataType, got[1100*512:2000*512])) != 0 || string(got[len(src.data):][:3]) != "old"[len(src.data)%3:]+"old"[:len(src.data)%3] {
		t.Error("holes are not zeros, or what is behind the disk is")
	}
	if err := f.Truncate(100); err != nil {
		t.Fatal(err)
	}
	if err := zeroHoles(t.Context(), im, f); err == nil || !strings.Contains(err.Error(), "for a disk of") {
		t.Errorf("a device that is too short: got %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full on this machine")
	}
	defer full.Close()
	if err := Export(t.Context(), im, full, nil); err == nil {
		t.Error("an export to a full device is no error")
	}
}

// FuzzOpen changes the blocks of an image, keeping each under the score of
// the one it was, and opens and reads it.
func FuzzOpen(f *testing.F) {
	mem := ventitest.NewMemory()
	data := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	res, err := Import(f.Context(), mem, &memSource{data: data}, ImportOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), uint16(0), []byte{})
	f.Add(uint8(0), uint16(258), []byte{1, 2, 3})
	f.Add(uint8(1), uint16(48), []byte{0xff, 0xff})
	f.Add(uint8(1), uint16(80), []byte("more entries"))
	f.Add(uint8(2), uint16(20), []byte(`"size": 1`))
	f.Add(uint8(3), uint16(0), []byte{9})
	f.Fuzz(func(t *testing.T, which uint8, off uint16, patch []byte) {
		br := &mutated{BlockReader: mem, which: int(which % 5), off: int(off), patch: patch}
		im, err := Open(t.Context(), br, res.Score)
		if err != nil {
			return
		}
		if im.Size() < 0 {
			t.Errorf("size %d", im.Size())
		}
		buf := make([]byte, 70000)
		for _, at := range []int64{0, im.Size() / 2, im.Size() - 1, im.Size()} {
			n, err := im.ReadAt(buf, max(at, 0))
			if n > len(buf) || err == nil && n != len(buf) {
				t.Errorf("read at %d: %d, %v", at, n, err)
			}
		}
		for off, i := int64(0), 0; i < 100; i++ {
			start, end, err := im.NextData(t.Context(), off)
			if err != nil {
				break
			}
			if start < off || end <= start || end > im.Size() {
				t.Fatalf("next data at %d: %d, %d", off, start, end)
			}
			off = end
		}
		if im.Size() < 1<<24 {
			if _, err := Verify(t.Context(), br, res.Score, nil); err != nil && !errors.Is(err, ErrNotImage) {
				t.Errorf("verify: %v", err)
			}
		}
		im.WriteInfo(io.Discard)
	})
}

// mutated is a store of which one block lies: root, directory, layout,
// pointers or data.
type mutated struct {
	venti.BlockReader
	which, off int
	patch      []byte
}

func (m *mutated) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	n, err := m.BlockReader.ReadBlock(ctx, s, t, buf)
	if err != nil {
		return n, err
	}
	which := map[venti.Type]int{venti.RootType: 0, venti.DirType: 1, venti.DataType: 4, venti.DataType + 1: 3}[t]
	if t == venti.DataType && bytes.HasPrefix(buf[:n], []byte("{")) {
		which = 2
	}
	if which != m.which || m.off > n {
		return n, nil
	}
	return max(n, m.off+copy(buf[m.off:], m.patch)), nil
}
