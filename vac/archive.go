package vac

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

// RootType is the type of an archive's root block, and the prefix of its
// score in text.
const RootType = "vac"

// An Archive is an open archive. It is immutable.
type Archive struct {
	Score venti.Score // of the root block
	Head  venti.Root  // the root block
	Root  *File       // the directory at the top

	br venti.BlockReader
}

// rootEntries are in the block below the root: the top directory's entry
// stream, its metadata stream, and the stream whose one block describes the
// directory itself.
const rootEntries = 3

// Open opens the archive whose root block has the score s.
func Open(ctx context.Context, br venti.BlockReader, s venti.Score) (*Archive, error) {
	a := &Archive{Score: s, br: br}
	if err := a.open(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", FormatScore(s), err)
	}
	return a, nil
}

func (a *Archive) open(ctx context.Context) error {
	if a.Score.IsZero() {
		return errors.New("the score of nothing: what made it failed")
	}
	// A reader that asks for a root need not know how long it is.
	buf := make([]byte, venti.MaxBlockSize)
	n, err := a.br.ReadBlock(ctx, a.Score, venti.RootType, buf)
	if err != nil {
		return fmt.Errorf("read root: %w", err)
	}
	if a.Head, err = venti.UnpackRoot(buf[:min(n, venti.RootSize)]); err != nil {
		return err
	}
	if a.Head.Type != RootType {
		return fmt.Errorf("root of type %q, not %q", a.Head.Type, RootType)
	}
	n, err = a.br.ReadBlock(ctx, a.Head.Score, venti.DirType, buf)
	if err != nil {
		return fmt.Errorf("read directory of root: %w", err)
	}
	clear(buf[n:max(n, rootEntries*venti.EntrySize)])
	var e [rootEntries]venti.Entry
	for i := range e {
		if e[i], err = venti.UnpackEntry(buf[i*venti.EntrySize:]); err != nil && i != 1 {
			return fmt.Errorf("entry %d of root: %w", i, err)
		}
	}
	// Fossil's archives have one level more.
	if !e[2].Active() {
		r, err := hashtree.NewReader(a.br, e[0], hashtree.ReaderConfig{})
		if err != nil {
			return fmt.Errorf("entry 0 of root: %w", err)
		}
		for i := range e {
			if e[i], err = r.ReadEntry(ctx, int64(i)); err == io.EOF {
				return fmt.Errorf("%d entries below root, want %d", i, rootEntries)
			} else if err != nil {
				return fmt.Errorf("entry %d below root: %w", i, err)
			}
		}
	}
	return a.openTop(ctx, e)
}

// openTop makes the File of the top directory.
func (a *Archive) openTop(ctx context.Context, e [rootEntries]venti.Entry) error {
	r, err := hashtree.NewReader(a.br, e[2], hashtree.ReaderConfig{})
	if err != nil {
		return fmt.Errorf("entry of the top directory: %w", err)
	}
	buf := make([]byte, e[2].DSize)
	if _, err := r.ReadAtContext(ctx, buf, 0); err != nil && err != io.EOF {
		return fmt.Errorf("entry of the top directory: %w", err)
	}
	b, err := meta.Open(buf)
	if err != nil {
		return fmt.Errorf("entry of the top directory: %w", err)
	}
	if b.Len() == 0 {
		return fmt.Errorf("entry of the top directory: %w: empty block", meta.ErrCorrupt)
	}
	d, err := b.Entry(0)
	if err != nil {
		return fmt.Errorf("entry of the top directory: %w", err)
	}
	a.Root = &File{DirEntry: d, archive: a, data: e[0], meta: e[1]}
	if d.QidSpace {
		a.Root.qidOffset = d.QidOffset
	}
	switch {
	case !d.Mode.IsDir():
		return fmt.Errorf("top is no directory, but %v", d.Mode)
	case !e[0].Active() || !e[0].Dir() || !e[1].Active() || e[1].Dir():
		return errors.New("entries of the top directory are not those of a directory")
	}
	return nil
}

// FormatScore returns the text that names the archive with a score.
func FormatScore(s venti.Score) string { return RootType + ":" + s.String() }

// scoreText is how long that text is.
const scoreText = len(RootType) + 1 + 2*venti.ScoreSize

// FindScore returns the score that arg names: the text of one, or a file
// that begins with it.
func FindScore(arg string) (venti.Score, error) {
	if strings.HasPrefix(arg, RootType+":") {
		return parseScore(arg)
	}
	f, err := os.Open(arg)
	if err != nil {
		return venti.Score{}, err
	}
	defer f.Close()
	b := make([]byte, scoreText)
	n, err := io.ReadFull(f, b)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return venti.Score{}, err
	}
	s, err := parseScore(string(b[:n]))
	if err != nil {
		return venti.Score{}, fmt.Errorf("%s: %w", arg, err)
	}
	return s, nil
}

func parseScore(text string) (venti.Score, error) {
	kind, s, err := venti.ParseTypedScore(text)
	switch {
	case err == nil && kind != RootType:
		err = fmt.Errorf("%q is not the score of an archive, which begins with %s:", text, RootType)
	case err == nil && s.IsZero():
		err = fmt.Errorf("%s is the score of nothing: what made it failed", text)
	}
	return s, err
}
