package ninetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep"
)

// TestDialects does the same operations, chosen at random from seed, to trees
// that are alike: through each dialect, and by memory. Each operation has the
// same outcome everywhere, and so has all of them together. newFS returns a
// tree, of which the directory that cfg.Write names is empty. What trees may do
// otherwise for clients from Unix (ninep.FromUnix) is left alone: modes are not
// masked, as every directory has all permissions, and nothing is open when it is
// removed.
func TestDialects(t *testing.T, newFS func(t *testing.T) ninep.FS, cfg TreeConfig, seed uint64, operations int) {
	type way struct {
		name string
		root *ninep.File
	}
	var ways []way
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
		ways = append(ways, way{d.String(), Dial(t, newFS(t), d, cfg.User, cfg.Aname)})
	}
	c := ninep.NewServer(newFS(t), ninep.Config{}).Local(ninep.ClientConfig{Dialect: ninep.Linux})
	t.Cleanup(func() { c.Close() })
	root, err := c.Attach(t.Context(), cfg.User, cfg.Aname)
	if err != nil {
		t.Fatal(err)
	}
	ways = append(ways, way{"memory", root})

	var outcomes [][]string
	for _, w := range ways {
		outcomes = append(outcomes, operate(t, w.root, elements(cfg.Write), seed, operations))
	}
	for i, w := range ways[1:] {
		for k, got := range outcomes[i+1] {
			if want := outcomes[0][k]; got != want {
				t.Fatalf("seed %d, operation %d: %s through %s, and %s through %s", seed, k, got, w.name, want, ways[0].name)
			}
		}
	}
}

// An operator does operations in a directory.
type operator struct {
	t    *testing.T
	rng  *rand.Rand
	root *ninep.File
	base []string
	open []*ninep.File // some of them nil
}

// operate does operations, and returns what came of each, and at last all
// that there is.
func operate(t *testing.T, root *ninep.File, base []string, seed uint64, operations int) []string {
	o := &operator{t: t, rng: rand.New(rand.NewPCG(seed, 9)), root: root, base: base, open: make([]*ninep.File, 4)}
	var list []string
	for range operations {
		what, result, err := o.operation()
		list = append(list, fmt.Sprintf("%s: %s %s", what, result, number(err)))
	}
	for i := range o.open {
		o.close(i)
	}
	return append(list, o.tree())
}

// number returns the errno that an error stands for: what every dialect can
// tell.
func number(err error) string {
	var e *ninep.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.EOF):
		return "EOF"
	case errors.As(err, &e):
		return e.Errno.Error()
	}
	return err.Error()
}

// path chooses a way from the directory, of one or two names.
func (o *operator) path() []string {
	p := []string{string(rune('a' + o.rng.IntN(5)))}
	if o.rng.IntN(2) == 0 {
		p = append(p, string(rune('a'+o.rng.IntN(5))))
	}
	return p
}

func (o *operator) walk(path []string) (*ninep.File, error) {
	return o.root.Walk(o.t.Context(), append(slices.Clone(o.base), path...)...)
}

func (o *operator) close(i int) {
	if f := o.open[i]; f != nil {
		f.Close(context.Background())
		o.open[i] = nil
	}
}

// with walks to a path, does something there, and gives the fid back.
func (o *operator) with(path []string, do func(f *ninep.File) (string, error)) (string, error) {
	f, err := o.walk(path)
	if err != nil {
		return "", err
	}
	defer f.Close(context.Background())
	return do(f)
}

func (o *operator) operation() (what, result string, err error) {
	ctx := o.t.Context()
	rng := o.rng
	path := o.path()
	dir, name := path[:len(path)-1], path[len(path)-1]
	slot := rng.IntN(len(o.open))
	off := int64(rng.IntN(20000))
	data := make([]byte, 1+rng.IntN(5000))
	for i := range data {
		data[i] = byte(i) + byte(off)
	}
	mode := []ninep.OpenMode{ninep.OREAD, ninep.OWRITE, ninep.ORDWR, ninep.ORDWR | ninep.OTRUNC}[rng.IntN(4)]
	perm := ninep.Mode(0400 + rng.IntN(0400))
	other := string(rune('a' + rng.IntN(5)))
	p := strings.Join(path, "/")
	f := o.open[slot]
	switch k := rng.IntN(14); {
	case k == 0:
		what = fmt.Sprintf("mkdir %s", p)
		result, err = o.with(dir, func(d *ninep.File) (string, error) {
			return "", d.Create(ctx, name, ninep.ModeDir|0777, ninep.OREAD)
		})
	case k <= 2:
		what = fmt.Sprintf("create %s %#o in slot %d", p, perm|0600, slot)
		var g *ninep.File
		if g, err = o.walk(dir); err == nil {
			if err = g.Create(ctx, name, perm|0600, ninep.ORDWR); err == nil {
				o.close(slot)
				o.open[slot] = g
			} else {
				g.Close(ctx)
			}
		}
	case k == 3:
		what = fmt.Sprintf("open %s %#x in slot %d", p, mode, slot)
		var g *ninep.File
		if g, err = o.walk(path); err == nil {
			if err = g.Open(ctx, mode); err == nil {
				o.close(slot)
				o.open[slot] = g
			} else {
				g.Close(ctx)
			}
		}
	case k <= 5 && f != nil:
		what = fmt.Sprintf("write %d bytes at %d to slot %d", len(data), off, slot)
		var n int
		n, err = f.WriteAt(ctx, data, off)
		result = fmt.Sprint(n)
	case k <= 7 && f != nil:
		what = fmt.Sprintf("read %d bytes at %d from slot %d", len(data), off, slot)
		if f.Qid().Dir() {
			break // each dialect has a message of its own for that
		}
		got := make([]byte, len(data))
		var n int
		n, err = f.ReadAt(ctx, got, off)
		result = fmt.Sprintf("%x", got[:n])
	case k == 8 && f != nil:
		what = fmt.Sprintf("resize slot %d to %d", slot, off)
		err = f.Wstat(ctx, ninep.Change{Length: &off})
	case k == 9:
		what = fmt.Sprintf("chmod %s %#o", p, perm)
		mtime := time.Unix(off, 0)
		result, err = o.with(path, func(f *ninep.File) (string, error) {
			if f.Qid().Dir() {
				perm = ninep.ModeDir | 0777
			}
			return "", f.Wstat(ctx, ninep.Change{Mode: &perm, Mtime: &mtime})
		})
	case k == 10:
		what = fmt.Sprintf("rename %s to %s beside it", p, other)
		result, err = o.with(dir, func(d *ninep.File) (string, error) {
			if g, err := d.Walk(ctx, other); err == nil { // to be replaced in one dialect only
				return "there already", g.Close(ctx)
			}
			f, err := d.Walk(ctx, name)
			if err != nil {
				return "", err
			}
			defer f.Close(ctx)
			return "", f.Rename(ctx, d, other)
		})
	case k == 11:
		what = "remove " + p
		var f *ninep.File
		if f, err = o.walk(path); err == nil {
			for i, g := range o.open {
				if g != nil && g.Qid().Path == f.Qid().Path {
					o.close(i)
				}
			}
			err = f.Remove(ctx)
		}
	case k == 12:
		what = "sync " + p
		result, err = o.with(path, func(f *ninep.File) (string, error) { return "", f.Sync(ctx) })
	default:
		what = "stat " + p
		result, err = o.with(path, func(f *ninep.File) (string, error) {
			d, err := f.Stat(ctx)
			return fmt.Sprintf("%s %#o %d", d.Name, d.Mode, d.Length), err
		})
	}
	return what, result, err
}

// tree returns all that there is.
func (o *operator) tree() string {
	found := make(map[string]string)
	f, err := o.walk(nil)
	if err != nil {
		return err.Error()
	}
	defer f.Close(context.Background())
	listRemote(o.t, f, "", TreeConfig{Skip: func(string) bool { return false }, MaxFiles: 1000}, found)
	var b bytes.Buffer
	for _, p := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&b, "%s %s\n", p, found[p])
	}
	return b.String()
}
