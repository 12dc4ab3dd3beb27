package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"strata/internal/ninep"
	"strata/venti"
)

// A Snapshot is a state of an image that is in the archive for good.
type Snapshot struct {
	Name  string      // by its day: 2026/1127, 2026/1127.1...
	Time  time.Time   // when it was taken
	Score venti.Score // of the disk, as an import would give it
	Kind  string      // Nightly, Asked or Before
	Tag   string      // "" if it has none
	From  string      // of a nightly one, the archive that it is in: 2026/1127
	Live  bool        // taken of an image that was not settled
}

// The kinds of snapshots.
const (
	Nightly = "nightly" // with all of the file system
	Asked   = "asked"   // for
	Before  = "before"  // a rollback
)

// The history of an image is the text file .history in its directory, a line
// for each thing that happened:
//
//	made 2026-11-26T15:04:05Z 2026/1126 vdisk:b1f3...
//	snap 2026/1127 2026-11-27T05:00:00Z vdisk:4d1c... nightly - 2026/1127 live
//	snap 2026/1127.1 2026-11-27T16:20:11Z vdisk:90aa... asked before-upgrade - settled
//	gone 2026/1127
//
// The first says when the image was made, after which archive of the file
// system, and of what. Snapshots are in the
// order in which they were taken. One that is gone is kept no longer: its blocks
// stay in the archive, but are not copied with the others.
//
// The score of a snapshot names no earlier one, so that it is that of an import
// of the same disk: which snapshot was before which is said here, and in a chain
// of roots (chain.go).

// A creation is the first line of a history.
type creation struct {
	Time  time.Time
	After string // an archive: those before are of another that had the name
	From  string
}

func (c creation) line() []byte {
	return fmt.Appendf(nil, "made %s %s %s\n", c.Time.UTC().Format(time.RFC3339), cmp.Or(c.After, "-"), c.From)
}

func (s *Snapshot) line() []byte {
	state := "settled"
	if s.Live {
		state = "live"
	}
	return fmt.Appendf(nil, "snap %s %s vdisk:%v %s %s %s %s\n",
		s.Name, s.Time.UTC().Format(time.RFC3339), s.Score, s.Kind, cmp.Or(s.Tag, "-"), cmp.Or(s.From, "-"), state)
}

// parseHistory reads a history.
func parseHistory(text string) (born creation, list []Snapshot, last string, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		bad := badLine(line)
		switch {
		case len(f) == 4 && f[0] == "made":
			if born.Time, err = time.Parse(time.RFC3339, f[1]); err != nil {
				return born, nil, "", bad
			}
			born.From = f[3]
			if f[2] != "-" {
				born.After, last = f[2], f[2]
			}
		case len(f) == 8 && f[0] == "snap":
			s := Snapshot{Name: f[1], Kind: f[4], Tag: f[5], From: f[6], Live: f[7] == "live"}
			if s.Time, err = time.Parse(time.RFC3339, f[2]); err != nil {
				return born, nil, "", bad
			}
			if _, s.Score, err = venti.ParseTypedScore(f[3]); err != nil {
				return born, nil, "", bad
			}
			for _, p := range []*string{&s.Tag, &s.From} {
				if *p == "-" {
					*p = ""
				}
			}
			if s.From != "" {
				last = s.From
			}
			list = append(list, s)
		case len(f) == 2 && f[0] == "gone":
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return s.Name == f[1] })
		default:
			return born, nil, "", bad
		}
	}
	return born, list, last, nil
}

// A badLine is the error for a line of a history.
type badLine string

func (l badLine) Error() string {
	return fmt.Sprintf("bad line of history %q", strings.TrimSpace(string(l)))
}

// readHistory sees to it that the image's history is known. The caller has the
// turn.
func (im *image) readHistory(ctx context.Context) error {
	if im.known {
		return nil
	}
	b, err := im.cat.host.readFile(ctx, im.dir()+"/"+historyFile)
	if err != nil {
		return err
	}
	im.born, im.history, im.last, err = parseHistory(string(b))
	im.known = err == nil
	return err
}

// record adds a line to the image's history. The caller has the turn.
func (im *image) record(ctx context.Context, line []byte) error {
	return im.cat.host.appendFile(ctx, im.dir()+"/"+historyFile, line)
}

// add adds a snapshot to the history, with a name of its day: the given one if
// that is free. The caller has the turn.
func (im *image) add(ctx context.Context, s Snapshot) (Snapshot, error) {
	name := archiveName{day: s.Time.Format("2006/0102")}
	s.Name = cmp.Or(s.From, name.String())
	if im.find(s.Name) != nil {
		for i := range im.history {
			if a, ok := parseArchive(im.history[i].Name); ok && a.day == name.day {
				name.n = max(name.n, a.n)
			}
		}
		name.n++
		s.Name = name.String()
	}
	if err := im.record(ctx, s.line()); err != nil {
		return s, err
	}
	im.history = append(im.history, s)
	if s.From != "" {
		im.last = s.From
	}
	return s, nil
}

// find returns the snapshot with a name or tag, or nil.
func (im *image) find(name string) *Snapshot {
	// The newest with a tag: it may have been given again.
	for i := len(im.history) - 1; i >= 0; i-- {
		if s := &im.history[i]; s.Name == name || s.Tag == name && name != "" {
			return s
		}
	}
	return nil
}

// An archiveName is the name of one of the file system's archives: yyyy/mmdd,
// and a number of the archives of one day.
type archiveName struct {
	day string
	n   int
}

func parseArchive(s string) (a archiveName, ok bool) {
	day, n, dotted := strings.Cut(s, ".")
	a.day = day
	if dotted {
		var err error
		if a.n, err = strconv.Atoi(n); err != nil || a.n < 1 {
			return a, false
		}
	}
	_, err := time.Parse("2006/0102", day)
	return a, err == nil
}

func (a archiveName) compare(b archiveName) int {
	return cmp.Or(strings.Compare(a.day, b.day), cmp.Compare(a.n, b.n))
}

func (a archiveName) String() string {
	if a.n == 0 {
		return a.day
	}
	return fmt.Sprintf("%s.%d", a.day, a.n)
}

// lastArchive returns the name of the file system's last archive, "" if it has
// none.
func (h *host) lastArchive(ctx context.Context) (string, error) {
	years, err := h.list(ctx, "/archive")
	if err != nil {
		return "", err
	}
	slices.SortFunc(years, func(a, b ninep.Dir) int { return strings.Compare(b.Name, a.Name) })
	for _, y := range years {
		list, err := h.archivesAfter(ctx, y.Name+"/0000")
		if err != nil {
			return "", err
		}
		if len(list) > 0 {
			return list[len(list)-1].String(), nil
		}
	}
	return "", nil
}

// archivesAfter lists the archives of the file system after one, or all, in
// order.
func (h *host) archivesAfter(ctx context.Context, last string) ([]archiveName, error) {
	after, _ := parseArchive(last)
	years, err := h.list(ctx, "/archive")
	if err != nil {
		return nil, err
	}
	var list []archiveName
	for _, y := range years {
		if len(y.Name) != 4 || after.day != "" && y.Name < after.day[:4] {
			continue
		}
		days, err := h.list(ctx, "/archive/"+y.Name)
		if err != nil {
			return nil, err
		}
		for _, d := range days {
			if a, ok := parseArchive(y.Name + "/" + d.Name); ok && a.compare(after) > 0 {
				list = append(list, a)
			}
		}
	}
	slices.SortFunc(list, archiveName.compare)
	return list, nil
}

// catchUp adds to the history what the file system has archived by itself
// since. The caller has the turn.
func (im *image) catchUp(ctx context.Context) error {
	if err := im.readHistory(ctx); err != nil {
		return err
	}
	h := im.cat.host
	list, err := h.archivesAfter(ctx, im.last)
	if err != nil {
		return err
	}
	for _, a := range list {
		path := "/archive/" + a.String()
		when, err := h.mtime(ctx, path)
		if err != nil {
			return err
		}
		score, live, err := im.cat.scoreOf(ctx, path+strings.TrimPrefix(im.dir(), "/active"))
		switch {
		case errors.Is(err, ninep.ErrNotExist), errors.Is(err, errNotImage):
			continue
		case isUnarchived(err):
			return nil // and those after it
		case err != nil:
			return err
		}
		if _, err := im.add(ctx, Snapshot{Time: when, Score: score, Kind: Nightly, From: a.String(), Live: live}); err != nil {
			return err
		}
	}
	return nil
}

// mtime returns when a file was changed.
func (h *host) mtime(ctx context.Context, path string) (time.Time, error) {
	f, err := h.walk(ctx, path)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close(ctx)
	d, err := f.Stat(ctx)
	return d.Mtime, err
}

// Log returns the snapshots of an image, the oldest first.
func (c *Catalogue) Log(ctx context.Context, name string) (list []Snapshot, err error) {
	err = c.with(ctx, name, func(ctx context.Context, im *image) error {
		if err := im.catchUp(ctx); err != nil {
			return fmt.Errorf("history of %s: %w", im.name, err)
		}
		list = slices.Clone(im.history)
		return nil
	})
	return list, err
}

// Find returns the snapshot of an image that has a name, by its day, or a tag.
func (c *Catalogue) Find(ctx context.Context, name, snap string) (s Snapshot, err error) {
	err = c.with(ctx, name, func(ctx context.Context, im *image) error {
		if err := im.readHistory(ctx); err != nil {
			return err
		}
		p := im.find(snap)
		if p == nil { // it may be one that nobody asked for yet
			if err := im.catchUp(ctx); err != nil {
				return err
			}
			p = im.find(snap)
		}
		if p == nil {
			return fmt.Errorf("snapshot %s@%s: %w", im.name, snap, ninep.ErrNotExist)
		}
		s = *p
		return nil
	})
	return s, err
}

// Resolve returns the snapshot that a reference names, or a new one of an image.
func (c *Catalogue) Resolve(ctx context.Context, ref string) (Snapshot, error) {
	name, snap, err := ParseRef(ref)
	switch {
	case err != nil:
		return Snapshot{}, err
	case snap == "":
		return c.Snapshot(ctx, name, "")
	}
	return c.Find(ctx, name, snap)
}
