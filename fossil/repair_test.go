package fossil

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/vac/meta"
)

// TestRepairGolden repairs a partition of the original's that was in use when
// its server was killed: in one run, and to what the original's check makes of
// it in three.
func TestRepairGolden(t *testing.T) {
	d := load(t, disk.NewMachine(), "crashed8k.fossil")
	fs := mustOpen(t, d, Config{NoAtime: true})
	r, err := fs.Check(t.Context(), CheckConfig{Fix: AllRepairs})
	if err != nil {
		t.Fatal(err)
	}
	// The blocks of 23 files that had lost their names come on top of those that
	// were lost; all were empty.
	if want := (Counts{Bclose: 306, Clri: 23, Clre: 23}); r.Done != want || r.Todo != (Counts{}) || r.Left() != 0 {
		t.Errorf("done %v, left %v, %d; want %v done", r.Done, r.Todo, r.Left(), want)
	}
	text, err := os.ReadFile(filepath.Join(goldenDir(t), "crashed8k.expect.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		After string `json:"df_after"`
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	log := uint32(0)
	for a := range fs.b.Blocks() {
		if l, err := fs.b.Label(t.Context(), a); err == nil && l == format.Reserved {
			log++
		}
	}
	if used := 248 * 8192; !strings.HasPrefix(want.After, "main: 2,031,616 used") || int(r.Used-log)*8192 != used {
		t.Errorf("%d blocks used besides the log, want %s", r.Used-log, want.After)
	}
	mustClose(t, fs)

	fs = mustOpen(t, d, Config{ReadOnly: true})
	clean(t, fs)
	list := lines(t, "crashed8k.afterfix.jsonl")
	if n := compare(t, fs.Root(), "", list); n != len(list) {
		t.Errorf("%d files, want %d", n, len(list))
	}
	mustClose(t, fs)
}

// A scene is a partition with files, and a snapshot of some of them that differs
// from the active tree.
type scene struct {
	t     testing.TB
	m     *disk.Machine
	d     *disk.Sim
	h     format.Header
	snap  string            // its path
	files map[string]string // what is known of each file
}

// newScene makes one: of the directories in /active and in the snapshot, same
// has not changed since, so that both have the same blocks; both is in both with
// other contents, old is in the snapshot alone and new in the active tree alone.
// Each holds files of different sizes and a directory.
func newScene(t testing.TB, blockSize int) *scene {
	t.Helper()
	m := disk.NewMachine()
	d := m.NewDisk("part", int64(4096*blockSize))
	if err := Format(t.Context(), d, FormatConfig{BlockSize: blockSize}); err != nil {
		t.Fatal(err)
	}
	fs, err := Open(d, Config{NoAtime: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	must := func(f *File, err error) *File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	active := must(fs.Walk(ctx, "/active"))
	fill := func(dir *File, k int) {
		for i, size := range []int{0, 10, blockSize, 5*blockSize + 1, blockSize * (blockSize/20 + 7)} {
			f := must(dir.Create(ctx, fmt.Sprintf("file%d", i), 0o644, "glenda"))
			if size > 1<<20 {
				size = 1 << 20
			}
			p := make([]byte, size)
			for j := range p {
				p[j] = byte(j%251 + k + j/blockSize + 1)
			}
			if _, err := f.WriteAt(ctx, p, 0, "glenda"); err != nil {
				t.Fatal(err)
			}
		}
		sub := must(dir.Create(ctx, "dir", meta.ModeDir|0o755, "glenda"))
		f := must(sub.Create(ctx, "file", 0o644, "glenda"))
		if _, err := f.WriteAt(ctx, []byte("in a directory"), 0, "glenda"); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"same", "both", "old"} {
		fill(must(active.Create(ctx, name, meta.ModeDir|0o755, "glenda")), i*50)
	}
	s := &scene{t: t, m: m, d: d}
	if s.snap, err = fs.Snapshot(ctx, SnapConfig{}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		f := must(fs.Walk(ctx, fmt.Sprintf("/active/both/file%d", i)))
		if _, err := f.WriteAt(ctx, []byte("changed"), int64(i*i*blockSize/3), "glenda"); err != nil {
			t.Fatal(err)
		}
	}
	f := must(fs.Walk(ctx, "/active/both/dir/file"))
	if _, err := f.WriteAt(ctx, []byte("changed"), 0, "glenda"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/dir/file", "/dir", "/file0", "/file1", "/file2", "/file3", "/file4", ""} {
		if err := must(fs.Walk(ctx, "/active/old"+path)).Remove(ctx, "glenda"); err != nil {
			t.Fatal(err)
		}
	}
	fill(must(active.Create(ctx, "new", meta.ModeDir|0o755, "glenda")), 150)
	if err := fs.Close(ctx); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, format.HeaderSize)
	if err := disk.ReadFull(d, raw, format.HeaderOffset); err != nil {
		t.Fatal(err)
	}
	if s.h, err = format.UnpackHeader(raw, d.Size()); err != nil {
		t.Fatal(err)
	}
	s.files = s.list()
	return s
}

// copy returns another partition that holds the same.
func (s *scene) copy(t testing.TB) *scene {
	c := *s
	c.t, c.m = t, s.m.Snapshot().Restart()
	c.d = c.m.Disk("part")
	return &c
}

// open opens the partition for reading.
func (s *scene) open() *FS {
	s.t.Helper()
	fs, err := Open(s.d, Config{ReadOnly: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return fs
}

// list returns what is known of each file.
func (s *scene) list() map[string]string {
	fs := s.open()
	defer fs.Close(context.Background())
	all := map[string]string{}
	listTree(fs.Root(), "", all)
	return all
}

// listTree adds what is known of the files below a directory.
func listTree(dir *File, path string, all map[string]string) {
	ctx := context.Background()
	for info, err := range dir.List(ctx) {
		if err != nil {
			all[path] += fmt.Sprintf(" (list: %v)", err)
			return
		}
		p := path + "/" + info.Name
		info.Cookie = 0
		what := fmt.Sprintf("%v %d %s %s %s %d %d %d %d", info.Mode, info.Size, info.UID, info.GID, info.MID, info.Mtime, info.Ctime, info.Qid, info.Mcount)
		f, err := dir.Walk(ctx, info.Name)
		switch {
		case err != nil:
			what += fmt.Sprintf(" (walk: %v)", err)
		case !f.IsDir():
			data := make([]byte, min(info.Size, 4<<20))
			n, err := f.ReadAt(ctx, data, 0)
			what += fmt.Sprintf(" %x", sha1.Sum(data[:n]))
			if err != nil {
				what += fmt.Sprintf(" (read: %v)", err)
			}
		}
		if was, ok := all[p]; ok {
			what = was + ", and again " + what
		}
		all[p] = what
		// Damage can make a directory one above itself; none of a scene is so deep.
		if err == nil && f.IsDir() && strings.Count(p, "/") < 9 {
			listTree(f, p, all)
		}
	}
}

// A spot is where on the partition the parts of a file are.
type spot struct {
	entry   format.Entry
	slotAt  uint32 // the block of the file's slot
	slot    int    // in it
	names   uint32 // the metadata block with its name
	name    string
	topType format.Type
}

// spot returns where a file is. With meta, its slot is that of the metadata of
// a directory.
func (s *scene) spot(path string, ofMeta bool) (p spot) {
	s.t.Helper()
	fs := s.open()
	defer fs.Close(context.Background())
	f, err := fs.Walk(context.Background(), path)
	if err != nil {
		s.t.Fatal(err)
	}
	err = fs.b.View(context.Background(), func(tx *buffer.Tx) error {
		str := f.data
		if ofMeta {
			str = f.meta
		}
		if p.entry, err = str.Entry(tx); err != nil {
			return err
		}
		up, err := f.parent.data.Entry(tx)
		if err != nil {
			return err
		}
		slot, _ := str.Slot()
		per := int64(up.DSize / format.EntrySize)
		at, err := f.parent.data.Pointer(tx, slot/per)
		if err != nil {
			return err
		}
		p.slotAt, _ = at.Addr()
		p.slot = int(slot % per)
		at, err = f.parent.meta.Pointer(tx, f.block)
		p.names, _ = at.Addr()
		p.name = f.dir.Name
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	p.topType = p.entry.Type()
	return p
}

// root returns the address of the topmost block of a file.
func (s *scene) root(path string, ofMeta bool) uint32 {
	s.t.Helper()
	p := s.spot(path, ofMeta)
	addr, ok := p.entry.Root.Addr()
	if !ok {
		s.t.Fatalf("%s is not here", path)
	}
	return addr
}

func (s *scene) read(n int, off int64) []byte {
	s.t.Helper()
	b := make([]byte, n)
	if err := disk.ReadFull(s.d, b, off); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *scene) write(b []byte, off int64) {
	s.t.Helper()
	if _, err := s.d.WriteAt(b, off); err != nil {
		s.t.Fatal(err)
	}
}

// change changes the bytes of a data block.
func (s *scene) change(addr uint32, f func(b []byte)) {
	s.t.Helper()
	off := s.h.Offset(s.h.Data + addr)
	b := s.read(s.h.BlockSize, off)
	f(b)
	s.write(b, off)
}

// setLabel changes a label.
func (s *scene) setLabel(addr uint32, f func(l *format.Label)) {
	s.t.Helper()
	off := s.labelAt(addr)
	b := s.read(format.LabelSize, off)
	l, err := format.UnpackLabel(b)
	if err != nil {
		s.t.Fatal(err)
	}
	f(&l)
	l.Pack(b)
	s.write(b, off)
}

func (s *scene) labelAt(addr uint32) int64 {
	lpb := s.h.LabelsPerBlock()
	return s.h.Offset(s.h.Label+addr/lpb) + int64(addr%lpb)*format.LabelSize
}

// setEntry changes the entry of a file.
func (s *scene) setEntry(p spot, f func(e *format.Entry)) {
	s.t.Helper()
	s.change(p.slotAt, func(b []byte) {
		e := format.EntryAt(b, p.slot)
		f(&e)
		format.PutEntry(b, p.slot, &e)
	})
}

// setName changes an entry of a metadata block; a nil one is taken out.
func (s *scene) setName(p spot, f func(e *meta.DirEntry) *meta.DirEntry) {
	s.t.Helper()
	s.change(p.names, func(b []byte) {
		block, err := meta.Open(b)
		if err != nil {
			s.t.Fatal(err)
		}
		i, ok := block.Search(p.name)
		if !ok {
			s.t.Fatalf("no %s", p.name)
		}
		e, err := block.Entry(i)
		if err != nil {
			s.t.Fatal(err)
		}
		if now := f(&e); now == nil {
			block.Remove(i)
		} else if err := block.Replace(i, now); err != nil {
			s.t.Fatal(err)
		}
	})
}

// freeBlock returns a free block.
func (s *scene) freeBlock() uint32 {
	for a := s.h.Blocks() / 2; ; a++ {
		if l, err := format.UnpackLabel(s.read(format.LabelSize, s.labelAt(a))); err == nil && l.State == format.Free {
			return a
		}
	}
}

// repaired repairs the partition, and checks that it is clean then. It returns
// what was found.
func (s *scene) repaired() CheckResult {
	s.t.Helper()
	ctx := context.Background()
	fs, err := Open(s.d, Config{NoAtime: true})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := fs.Check(ctx, CheckConfig{Snapshots: true, Fix: AllRepairs})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range r.Findings {
		if !f.Fixed {
			s.t.Errorf("left: %s (%s)", f.Text, f.Repair)
		}
	}
	again, err := fs.Check(ctx, CheckConfig{Snapshots: true, Data: true})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range again.Findings {
		s.t.Errorf("second check: %s (%s)", f.Text, f.Repair)
	}
	if used, _ := fs.b.Used(); used != again.Used {
		s.t.Errorf("%d blocks used, by count %d", again.Used, used)
	}
	if err := fs.Close(ctx); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestRepair damages partitions in each way that a check finds.
func TestRepair(t *testing.T) {
	active, both := "/active/both", "/active/same"
	scenes := []*scene{newScene(t, 1024), newScene(t, 8192), newScene(t, 56<<10)}
	type damage struct {
		name string
		// where says in which directory: one that is in the active tree, in the
		// snapshot, or in both. lost are the files below it that may have changed
		// after the repair.
		do    func(s *scene, where string)
		finds string
		lost  string
	}
	for _, tc := range []damage{
		{"leaf of another stream", func(s *scene, w string) {
			s.change(s.root(w+"/file3", false), func(b []byte) {
				a, _ := format.PointerAt(b, 3).Addr()
				s.setLabel(a, func(l *format.Label) { l.Tag++ })
			})
		}, "block label mismatch", "/file3"},
		{"leaf is free", func(s *scene, w string) {
			s.change(s.root(w+"/file3", false), func(b []byte) {
				a, _ := format.PointerAt(b, 3).Addr()
				s.setLabel(a, func(l *format.Label) { *l = format.Label{} })
			})
		}, "block label mismatch", "/file3"},
		{"block of another level", func(s *scene, w string) {
			s.setLabel(s.root(w+"/file4", false), func(l *format.Label) { l.Type++ })
		}, "block label mismatch", "/file4"},
		{"address outside", func(s *scene, w string) {
			s.change(s.root(w+"/file4", false), func(b []byte) { format.PutPointer(b, 3, format.Local(s.h.Blocks())) })
		}, "illegal block address", "/file4"},
		{"child is younger", func(s *scene, w string) {
			s.setLabel(s.root(w+"/file2", false), func(l *format.Label) { l.Epoch = 9 })
		}, "points at", "/file2"},
		{"leaf led to twice", func(s *scene, w string) {
			s.change(s.root(w+"/file3", false), func(b []byte) { format.PutPointer(b, 4, format.PointerAt(b, 0)) })
		}, "join detected", "/file3"},
		{"entry's tag is small", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/file2", false), func(e *format.Entry) { e.Tag = 5 })
		}, "bad tag in entry", "/file2"},
		{"entry of a snapshot to come", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/dir", false), func(e *format.Entry) { e.Snap = 99 })
		}, "bad snap in entry", "/dir"},
		{"entry's block size", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/file3", false), func(e *format.Entry) { e.DSize = 7 })
		}, "corrupted file entry", "/file3"},
		{"entry's depth", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/file4", false), func(e *format.Entry) { e.Size = e.MaxSize() })
		}, "corrupted file entry", "/file4"},
		{"entry is no directory's", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/file1", false), func(e *format.Entry) { e.Dir = true })
		}, "block label mismatch", "/file1"},
		{"entry's generation", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/file3", false), func(e *format.Entry) { e.Gen++ })
		}, "could not open source", "/file3"},
		{"slot is free", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/file3", false), func(e *format.Entry) { *e = format.Entry{Gen: e.Gen} })
		}, "could not open source", "/file3"},
		{"slot of a directory is free", func(s *scene, w string) {
			s.setEntry(s.spot(w+"/dir", true), func(e *format.Entry) { *e = format.Entry{Gen: e.Gen} })
		}, "could not open source", "/dir"},
		{"slot without a name", func(s *scene, w string) {
			s.setName(s.spot(w+"/file4", false), func(*meta.DirEntry) *meta.DirEntry { return nil })
		}, "non referenced entry", "/file4"},
		{"name of another's slot", func(s *scene, w string) {
			other := uint32(0)
			s.setName(s.spot(w+"/file1", false), func(e *meta.DirEntry) *meta.DirEntry { other = e.Entry; return e })
			s.setName(s.spot(w+"/file4", false), func(e *meta.DirEntry) *meta.DirEntry { e.Entry = other; return e })
		}, "multiple references", "/file4"},
		{"name's mode", func(s *scene, w string) {
			s.setName(s.spot(w+"/file3", false), func(e *meta.DirEntry) *meta.DirEntry { e.Mode |= meta.ModeDir; return e })
		}, "could not open source", "/file3"},
		{"metadata's magic", func(s *scene, w string) {
			s.change(s.spot(w+"/file3", false).names, func(b []byte) { b[1] ^= 4 })
		}, "bad meta block", ""},
		{"metadata's index", func(s *scene, w string) {
			s.change(s.spot(w+"/file3", false).names, func(b []byte) { clear(b[12:20]) })
		}, "bad meta block", ""},
		{"metadata's order", func(s *scene, w string) {
			s.change(s.spot(w+"/file3", false).names, func(b []byte) {
				first := bytes.Clone(b[12:16])
				copy(b[12:], b[16:20])
				copy(b[16:], first)
			})
		}, "out of order", ""},
		{"one name of metadata", func(s *scene, w string) {
			s.change(s.spot(w+"/file3", false).names, func(b []byte) { b[bytes.Index(b, []byte("file3"))-1] = 77 })
		}, "bad meta block", "/file3"},
		{"metadata is all zeros", func(s *scene, w string) {
			s.change(s.root(w+"/dir", true), func(b []byte) { clear(b) })
		}, "bad meta block", "/dir/file"},
		{"metadata of another stream", func(s *scene, w string) {
			s.setLabel(s.root(w+"/dir", true), func(l *format.Label) { l.Tag++ })
		}, "block label mismatch", "/dir"},
		{"slots of another stream", func(s *scene, w string) {
			s.setLabel(s.root(w+"/dir", false), func(l *format.Label) { l.Tag++ })
		}, "block label mismatch", "/dir"},
		{"label of a leaf", func(s *scene, w string) {
			s.write([]byte{0x77}, s.labelAt(s.root(w+"/file2", false)))
		}, "could not read label", ""},
		{"label of pointers", func(s *scene, w string) {
			s.write([]byte{0x77}, s.labelAt(s.root(w+"/file4", false)))
		}, "could not read label", ""},
		{"labels of directories", func(s *scene, w string) {
			s.write([]byte{0x77, 0xff}, s.labelAt(s.root(w, false)))
			s.write([]byte{0x77, 0xff}, s.labelAt(s.root(w, true)))
		}, "could not read label", ""},
		{"label of a free block", func(s *scene, w string) {
			s.write([]byte{0x77}, s.labelAt(s.freeBlock()))
		}, "could not read label", ""},
		{"lost block", func(s *scene, w string) {
			s.setLabel(s.freeBlock(), func(l *format.Label) {
				*l = format.Label{State: format.Alloc, Type: format.Data, Epoch: 1, EpochClose: format.Open, Tag: 12345}
			})
		}, "unreachable block", ""},
		{"on Venti or not", func(s *scene, w string) {
			s.setLabel(s.root(w+"/file4", false), func(l *format.Label) { l.State |= format.Venti })
		}, "said to be on Venti", ""},
		{"closed", func(s *scene, w string) {
			s.setLabel(s.root(w+"/file4", false), func(l *format.Label) {
				l.State |= format.Closed
				l.EpochClose = l.Epoch
			})
		}, "walk:", ""},
	} {
		for _, scene := range scenes {
			bs := scene.h.BlockSize
			for where, path := range map[string]string{"active": active, "snapshot": "SNAP/old", "both": both} {
				if bs == format.MaxBlockSize && where != "both" && trials(1) == 1 {
					continue // they are large
				}
				t.Run(fmt.Sprintf("%s/%d/%s", tc.name, bs, where), func(t *testing.T) {
					t.Parallel()
					s := scene.copy(t)
					path = strings.Replace(path, "SNAP", s.snap, 1)
					tc.do(s, path)
					r := s.repaired()
					if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.Text, tc.finds) }) {
						t.Errorf("found %+v, want %q", r.Findings, tc.finds)
					}
					prefixes := []string{path + tc.lost}
					if where == "both" {
						prefixes = append(prefixes, s.snap+strings.TrimPrefix(path, "/active")+tc.lost)
					}
					if tc.lost == "" {
						prefixes = nil
					}
					// What has lost its name.
					prefixes = append(prefixes, path+"/lost.", path+"/dir/lost.")
					differ(t, s.files, s.list(), prefixes)
				})
			}
		}
	}
}

// differ fails for files that are not what they were, but for those whose path
// has one of some prefixes.
func differ(t testing.TB, was, now map[string]string, but []string) {
	t.Helper()
	names := maps.Clone(was)
	maps.Copy(names, now)
	for _, p := range slices.Sorted(maps.Keys(names)) {
		if was[p] != now[p] && !slices.ContainsFunc(but, func(prefix string) bool { return strings.HasPrefix(p, prefix) }) {
			t.Errorf("%s: %q\nwas %q", p, now[p], was[p])
		}
	}
}
