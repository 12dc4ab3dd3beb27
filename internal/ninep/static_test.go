package ninep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
)

// staticTree is a tree made of each building block.
func staticTree(data []byte) ninep.FS {
	var path uint64
	dir := func(name string, mode ninep.Mode) ninep.Dir {
		path++
		return ninep.Dir{Name: name, Mode: mode, Qid: ninep.Qid{Path: path}}
	}
	file := func(name string) ninep.Dir {
		d := dir(name, 0444)
		d.Length = int64(len(data))
		return d
	}
	number := func(_ context.Context, name string) (ninep.Node, error) {
		d := ninep.Dir{Name: name, Mode: 0444, Qid: ninep.Qid{Path: ninep.QidPath("numbers/" + name)}}
		var n int
		if _, err := fmt.Sscanf(name, "%d", &n); err != nil || fmt.Sprint(n) != name {
			return nil, ninep.ErrNotExist
		}
		return ninep.NewText(d, func(context.Context) (string, error) { return fmt.Sprintln(n * n), nil }), nil
	}
	return fixedFS{ninep.NewDir(dir("/", 0555), map[string]ninep.Node{
		"file":   ninep.NewFile(file("file"), ninep.FromReaderAt(bytes.NewReader(data))),
		"cached": ninep.NewFile(file("cached"), cachedBlock{data}),
		"lent":   ninep.NewFile(file("lent"), &lentFile{block: data, piece: 100}),
		"text":   ninep.NewText(dir("text", 0444), func(context.Context) (string, error) { return "words\n", nil }),
		"sub":    ninep.NewDir(dir("sub", 0555), map[string]ninep.Node{"empty": ninep.NewDir(dir("empty", 0555), nil)}),
		"numbers": ninep.LookupDir(dir("numbers", 0555), number, func(ctx context.Context) ([]ninep.Dir, error) {
			var list []ninep.Dir
			for i := range 200 {
				n, err := number(ctx, fmt.Sprint(i))
				if err != nil {
					return nil, err
				}
				d, err := n.Stat(ctx)
				if err != nil {
					return nil, err
				}
				list = append(list, d)
			}
			return list, nil
		}),
		"unlisted": ninep.LookupDir(dir("unlisted", 0555), number, nil),
	})}
}

// TestStaticTree holds the building blocks to the contract.
func TestStaticTree(t *testing.T) {
	ninetest.TestTree(t, staticTree(pattern(100000)), ninetest.TreeConfig{})
}

// TestMemTree holds the tree that other tests use to it.
func TestMemTree(t *testing.T) {
	fs := newMemFS()
	root := ninetest.Dial(t, fs, ninep.Classic, "glenda", "")
	dir, file := mustWalk(t, root), mustWalk(t, root)
	if err := dir.Create(t.Context(), "dir", ninep.ModeDir|0777, ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	if err := file.Create(t.Context(), "file", 0600, ninep.OWRITE); err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(t.Context(), pattern(100000), 0); err != nil {
		t.Fatal(err)
	}
	ninetest.TestTree(t, fs, ninetest.TreeConfig{User: "glenda", Write: "dir"})
	ninetest.TestTree(t, fs, ninetest.TreeConfig{User: "glenda", Write: "/"})
}

// TestReadOnly tries to change what cannot be changed.
func TestReadOnly(t *testing.T) {
	ctx := t.Context()
	for _, d := range dialects {
		t.Run(d.String(), func(t *testing.T) {
			root := ninetest.Dial(t, staticTree(pattern(10)), d, "glenda", "")
			walk := func(names ...string) *ninep.File {
				t.Helper()
				f, err := root.Walk(ctx, names...)
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			length := int64(0)
			for what, err := range map[string]error{
				"create":     walk().Create(ctx, "x", 0644, ninep.OWRITE),
				"mkdir":      walk("sub").Create(ctx, "x", ninep.ModeDir|0755, ninep.OREAD),
				"open":       walk("file").Open(ctx, ninep.ORDWR),
				"truncate":   walk("text").Open(ctx, ninep.OREAD|ninep.OTRUNC),
				"open both":  walk("numbers", "7").Open(ctx, ninep.ORDWR),
				"wstat":      walk("file").Wstat(ctx, ninep.Change{Length: &length}),
				"remove":     walk("file").Remove(ctx),
				"remove dir": walk("sub", "empty").Remove(ctx),
				"rename":     walk("file").Rename(ctx, walk(), "elsewhere"),
			} {
				if !errors.Is(err, ninep.ErrReadOnly) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if err := walk("file").Rename(ctx, walk("sub"), "file2"); d == ninep.Linux && !errors.Is(err, ninep.ErrCrossDevice) {
				t.Errorf("rename to another directory: %v", err)
			}
			// What a tree that is only read does not know.
			for text, errno := range map[string]uint32{
				`Tsymlink fid 1 name "x" target "y"`:      30,
				`Tmknod fid 1 name "x" perm 060600`:       30,
				`Tlink newfid 1 fid 2 name "x"`:           30,
				`Txattrwalk fid 2 newfid 9 name "user.x"`: 95,
				`Txattrcreate fid 2 name "user.x" size 1`: 95,
				`Tunlinkat fid 1 name "file"`:             30,
				`Tsetattr fid 2 valid 1 mode 0777`:        30,
				`Tsetattr fid 2 valid 64`:                 0,
				`Tfsync fid 2`:                            0,
				`Tstatfs fid 2`:                           0,
			} {
				if d != ninep.Linux {
					break
				}
				p := newPeer(t, serve(t, staticTree(pattern(10)), ninep.Config{}))
				p.start(d, 8192)
				p.must(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"file"}})
				f, err := ninep.ParseText(text, d)
				if err != nil {
					t.Fatal(err)
				}
				f.Tag = 1
				if r := p.call(f); r.Errno != errno {
					t.Errorf("%s: %s", text, r.Text(d))
				}
			}
		})
	}
}

// TestNotStored asks a tree that can be written for what it does not store.
func TestNotStored(t *testing.T) {
	dir := &stuckDir{Node: ninep.NewDir(ninep.Dir{Name: "/"}, map[string]ninep.Node{
		"file": ninep.NewFile(ninep.Dir{Name: "file", Qid: ninep.Qid{Path: 2}}, block(nil)),
		"sub":  ninep.NewDir(ninep.Dir{Name: "sub", Qid: ninep.Qid{Path: 3}}, nil),
	})}
	p := newPeer(t, serve(t, fixedFS{dir}, ninep.Config{}))
	p.start(ninep.Linux, 8192)
	p.must(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"file"}})
	p.must(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 3, Names: []string{"sub"}})
	for text, errno := range map[string]uint32{
		`Tsymlink fid 1 name "x" target "y"`:                      95,
		`Tmknod fid 1 name "x" perm 060600`:                       95,
		`Tmknod fid 1 name "x" perm 010600`:                       95,
		`Tlink newfid 1 fid 2 name "x"`:                           95,
		`Txattrwalk fid 2 newfid 9 name "user.x"`:                 95,
		`Txattrcreate fid 2 name "user.x" size 1`:                 95,
		`Trenameat fid 1 name "file" newfid 3 newname "file"`:     18,
		`Trename fid 2 newfid 3 name "file"`:                      18,
		`Tunlinkat fid 1 name "file"`:                             30,
		`Tstatfs fid 1`:                                           0,
		`Tlock fid 2 type 1 start 0 length 0 proc 1 client "a"`:   9, // it is not open
		`Tgetlock fid 2 type 1 start 0 length 0 proc 1 client ""`: 9,
	} {
		f, err := ninep.ParseText(text, ninep.Linux)
		if err != nil {
			t.Fatal(err)
		}
		f.Tag = 1
		if r := p.call(f); r.Errno != errno {
			t.Errorf("%s: %s", text, r.Text(ninep.Linux))
		}
	}
}
