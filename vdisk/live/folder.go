package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"strata/internal/ninep"
	"strata/vdisk"
)

// What lies in an image's directory besides a file for each region. Regions'
// names never begin with a dot.
const (
	layoutFile  = "layout.json"
	historyFile = ".history"   // see history.go
	protectFile = ".protected" // is there if the image is
	bootFile    = ".boot"      // see bootset.go
	// is there if the image was written to since it was settled
	unsettledFile = ".unsettled"
	newPrefix     = ".new."  // the file of a region to be
	bodyPrefix    = ".body." // what of a swap region is never kept

	// An edit changes which files an image is made of. It is prepared in files
	// with new names, beside those in use. The file .commit, which holds the new
	// layout and what is to be renamed, is the commit point; after it, files that
	// stay but are to be called otherwise get a new name too. Then .commit becomes
	// .finish, and new names take the place of what is there. Each step can be
	// done again, so a crash leaves the old image or, when it is next opened, the
	// new one. A snapshot that was taken in between says by the same files what
	// it is of.
	commitFile = ".commit"
	finishFile = ".finish"
)

// And in the directories of the catalogue.
const (
	buildPrefix = ".new."   // an image that is being made
	oldPrefix   = ".old."   // one that is being removed
	throwPrefix = ".throw." // one that is thrown away after use: see throw.go
	lockFile    = ".lock"   // who has it open has the catalogue
)

// An edit is what .commit and .finish hold.
type edit struct {
	Layout string            `json:"layout"`          // the bytes of layout.json
	Moves  map[string]string `json:"moves,omitempty"` // the new name of a region: the file that it is in now
}

// A folder says what is in the directory of an image, of the live one or of a
// snapshot's.
type folder struct {
	names  map[string]bool
	edit   *edit // nil unless one was under way
	layout *vdisk.Layout
}

// isImage tells whether a directory with these files is an image.
func isImage(names map[string]bool) bool {
	return names[layoutFile] || names[commitFile] || names[finishFile]
}

// openFolder finds out what an image is made of; read reads a file of its
// directory.
func openFolder(names map[string]bool, read func(name string) ([]byte, error)) (*folder, error) {
	f := &folder{names: names}
	text, name := []byte(nil), layoutFile
	var err error
	for _, n := range []string{commitFile, finishFile} {
		if !names[n] {
			continue
		}
		b, err := read(n)
		if err != nil {
			return nil, err
		}
		f.edit = new(edit)
		if err := json.Unmarshal(b, f.edit); err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		text, name = []byte(f.edit.Layout), n
	}
	if f.edit == nil {
		if text, err = read(layoutFile); err != nil {
			return nil, err
		}
	}
	if f.layout, err = vdisk.DecodeLayout(text); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// file returns the name of the file that a region is in.
func (f *folder) file(region string) string {
	switch {
	case f.edit == nil:
		return region
	case f.names[newPrefix+region]:
		return newPrefix + region
	case f.names[commitFile] && f.edit.Moves[region] != "" && f.names[f.edit.Moves[region]]:
		return f.edit.Moves[region]
	}
	return region
}

// readFolder reads an image's directory.
func (h *host) readFolder(ctx context.Context, dir string) (*folder, error) {
	list, err := h.list(ctx, dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, d := range list {
		names[d.Name] = true
	}
	if !isImage(names) {
		return nil, errNotImage
	}
	return openFolder(names, func(name string) ([]byte, error) { return h.readFile(ctx, dir+"/"+name) })
}

// commit makes an edit that has been prepared happen. Before it returns
// without an error nothing has changed for good, or all.
func (h *host) commit(ctx context.Context, dir string, l *vdisk.Layout, moves map[string]string) error {
	text, err := l.Encode()
	if err != nil {
		return err
	}
	b, err := json.Marshal(edit{string(text), moves})
	if err != nil {
		return err
	}
	// What it names must be there when it is.
	if err := h.sync(ctx); err != nil {
		return err
	}
	if err := h.replaceFile(ctx, dir, commitFile, b); err != nil {
		return err
	}
	return h.sync(ctx) // the commit point
}

// finish does what is left to do of an edit, and removes what one that was
// not committed has left. It returns what is in the directory then.
func (h *host) finish(ctx context.Context, dir string, f *folder) (*folder, error) {
	if f.edit != nil {
		if err := h.applyEdit(ctx, dir, f); err != nil {
			return nil, fmt.Errorf("finish what was begun: %w", err)
		}
	}
	keep := map[string]bool{layoutFile: true, historyFile: true, protectFile: true, bootFile: true, unsettledFile: true}
	for i := range f.layout.Regions {
		r := &f.layout.Regions[i]
		files := []string{r.Name}
		if _, ok := bodyOf(r); ok {
			files = append(files, bodyPrefix+r.Name)
		}
		for _, name := range files {
			keep[name] = true
			if err := h.setLength(ctx, dir+"/"+name, r.Length); err != nil {
				return nil, err
			}
		}
	}
	list, err := h.list(ctx, dir)
	if err != nil {
		return nil, err
	}
	f = &folder{names: make(map[string]bool), layout: f.layout}
	for _, d := range list {
		if !keep[d.Name] {
			if err := h.remove(ctx, dir, d.Name); err != nil {
				return nil, err
			}
			continue
		}
		f.names[d.Name] = true
	}
	return f, nil
}

// setLength gives a file the length of its region, which an edit, or one that
// was not committed, may have changed. A body need not be there.
func (h *host) setLength(ctx context.Context, path string, length int64) error {
	n, err := h.size(ctx, path)
	switch {
	case errors.Is(err, ninep.ErrNotExist) && strings.Contains(path, "/"+bodyPrefix):
		return nil
	case err != nil || n == length:
		return err
	}
	return h.resize(ctx, path, length)
}

// applyEdit does the steps behind the commit point.
func (h *host) applyEdit(ctx context.Context, dir string, f *folder) error {
	if !f.names[finishFile] {
		for to, from := range f.edit.Moves {
			err := h.rename(ctx, dir, from, dir, newPrefix+to)
			if err != nil && !errors.Is(err, ninep.ErrNotExist) { // done before
				return err
			}
		}
		if err := h.rename(ctx, dir, commitFile, dir, finishFile); err != nil {
			return err
		}
	}
	list, err := h.list(ctx, dir)
	if err != nil {
		return err
	}
	// Bodies last, for that of an old region is of no use to the new one.
	slices.SortFunc(list, func(a, b ninep.Dir) int { return strings.Compare(b.Name, a.Name) })
	for _, d := range list {
		name, ok := strings.CutPrefix(d.Name, newPrefix)
		if !ok {
			continue
		}
		err := h.remove(ctx, dir, bodyPrefix+name)
		if err != nil && !errors.Is(err, ninep.ErrNotExist) {
			return err
		}
		if err := h.rename(ctx, dir, d.Name, dir, name); err != nil {
			return err
		}
	}
	if err := h.replaceFile(ctx, dir, layoutFile, []byte(f.edit.Layout)); err != nil {
		return err
	}
	return h.remove(ctx, dir, finishFile)
}
