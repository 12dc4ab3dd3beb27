// Package vactest makes archives for tests that would take files of the host
// too long.
package vactest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

// Block is how long the blocks of Directory's archives are.
const Block = 1024

// Directory stores an archive of n empty files in its top directory, which are
// in no order, and returns the score of its root.
func Directory(t testing.TB, st venti.Store, n int) venti.Score {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	stream := func(data []byte, dir bool) venti.Entry {
		e, _, err := hashtree.Write(ctx, st, bytes.NewReader(data), int64(len(data)), hashtree.Config{DSize: Block, Dir: dir})
		must(err)
		return e
	}
	block := func() *meta.Block { return meta.New(make([]byte, Block), meta.MaxIndex(Block), meta.LongerFirst) }
	var metadata, entries []byte
	b := block()
	empty := venti.Entry{PSize: Block, DSize: Block, Flags: venti.EntryActive, Score: venti.EmptyScore}
	for i := range n {
		e := meta.DirEntry{Version: 8, Name: Name(i, n), Entry: uint32(i), Qid: uint64(i + 1), UID: "u", GID: "g", Mode: 0o644}
		err := b.Insert(&e)
		if errors.Is(err, meta.ErrFull) {
			metadata = append(metadata, b.Bytes()...)
			b = block()
			err = b.Insert(&e)
		}
		must(err)
		if i%(Block/venti.EntrySize) == 0 {
			entries = append(entries, make([]byte, (Block-len(entries)%Block)%Block)...)
		}
		entries, err = empty.Pack(entries)
		must(err)
	}
	metadata = append(metadata, b.Bytes()...)
	top := block()
	must(top.Insert(&meta.DirEntry{Version: 8, Name: "/", MEntry: 1, Mode: meta.ModeDir | 0o755}))
	var dir []byte
	for _, e := range []venti.Entry{stream(entries, true), stream(metadata, false), stream(top.Bytes(), false)} {
		var err error
		dir, err = e.Pack(dir)
		must(err)
	}
	s, err := st.WriteBlock(ctx, venti.DirType, dir)
	must(err)
	root, err := (&venti.Root{Type: "vac", Score: s, BlockSize: Block}).Pack(nil)
	must(err)
	s, err = st.WriteBlock(ctx, venti.RootType, root)
	must(err)
	return s
}

// Name returns the name of the i-th of n files; n is no multiple of 7919.
func Name(i, n int) string { return fmt.Sprintf("file%d", i*7919%n) }
