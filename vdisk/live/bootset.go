package live

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/venti"
)

// The boot set of an image says which parts of its disk were read when it was
// last started. It is the text file .boot in the image's directory:
//
//	boot 2026-11-27T05:00:00Z 2
//	0 20480
//	1048576 65536
//
// The first line has the time of the start and the number of ranges, which
// follow in the order in which they were read first: of each the offset on the
// disk and the length in bytes, multiples of 4096. No block is in two. A file that says "off" is of an image
// of which no start is watched. The file is a hint: what is wrong with it makes
// it as good as none. No score depends on it.
//
// Ranges, not scores, are what can be asked of the file system, whose cache is
// where blocks must be; they hold for what the image has come to have there since,
// and lead to the scores by the pointer blocks, which a start must read as well.

// A BootSet is what is known of the starts of an image.
type BootSet struct {
	Off    bool          // they are not watched
	Time   time.Time     // of the last that was; zero if none was
	Ranges []vdisk.Range // of the disk, in the order in which it has read them first: whole blocks of 4 KiB
}

// Bounds of a boot set.
const (
	bootBlock = 4096      // bytes of what is noted
	maxBoot   = 128 << 20 // bytes that are noted
	minBoot   = 256 << 10 // bytes below which it was no start of a guest
)

const bootOff = "off\n"

func packBootSet(b *BootSet) []byte {
	if b.Off {
		return []byte(bootOff)
	}
	text := fmt.Appendf(nil, "boot %s %d\n", b.Time.UTC().Format(time.RFC3339), len(b.Ranges))
	for _, r := range b.Ranges {
		text = fmt.Appendf(text, "%d %d\n", r.Off, r.Len)
	}
	return text
}

// unpackBootSet reads a boot set, and takes only what packBootSet makes.
func unpackBootSet(text []byte) (*BootSet, error) {
	if string(text) == bootOff {
		return &BootSet{Off: true}, nil
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(head)
	if len(f) != 3 || f[0] != "boot" {
		return nil, fmt.Errorf("boot set: bad first line %.100q", head)
	}
	b := new(BootSet)
	when, err := time.Parse(time.RFC3339, f[1])
	n, nerr := strconv.Atoi(f[2])
	if err = errors.Join(err, nerr); err != nil {
		return nil, fmt.Errorf("boot set: %w", err)
	}
	b.Time = when
	if n < 0 || n > maxBoot/bootBlock {
		return nil, fmt.Errorf("boot set: %d ranges, at most %d", n, maxBoot/bootBlock)
	}
	total := int64(0)
	for line := range strings.Lines(rest) {
		var r vdisk.Range
		off, length, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var err1, err2 error
		r.Off, err1 = strconv.ParseInt(off, 10, 64)
		r.Len, err2 = strconv.ParseInt(length, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("boot set: %w", err)
		}
		total += r.Len
		if r.Off < 0 || r.Off > MaxSize || r.Len <= 0 || r.Len > maxBoot || total > maxBoot || r.Off%bootBlock != 0 || r.Len%bootBlock != 0 {
			return nil, fmt.Errorf("boot set: bad range %q", line)
		}
		b.Ranges = append(b.Ranges, r)
	}
	sorted := slices.SortedFunc(slices.Values(b.Ranges), byPlace)
	for i := range sorted[min(1, len(sorted)):] {
		if sorted[i].End() > sorted[i+1].Off {
			return nil, fmt.Errorf("boot set: the block at %d is there twice", sorted[i+1].Off)
		}
	}
	if len(b.Ranges) != n || !bytes.Equal(packBootSet(b), text) {
		return nil, errors.New("boot set: not as it was written")
	}
	return b, nil
}

// byPlace compares ranges by where they begin.
func byPlace(a, b vdisk.Range) int { return cmp.Compare(a.Off, b.Off) }

// bytes returns how long all ranges are together.
func (b *BootSet) bytes() (n int64) {
	for _, r := range b.Ranges {
		n += r.Len
	}
	return n
}

// readBootSet returns the boot set in an image's directory. Without one, or one
// that can be read, it is empty.
func (c *Catalogue) readBootSet(ctx context.Context, dir string) (*BootSet, error) {
	text, err := c.host.readFile(ctx, dir+"/"+bootFile)
	if errors.Is(err, ninep.ErrNotExist) {
		return new(BootSet), nil
	}
	if err != nil {
		return nil, err
	}
	b, err := unpackBootSet(text)
	if err != nil {
		c.log.Warn("what an image's start reads is not known", "image", dir, "error", err)
		return new(BootSet), nil
	}
	return b, nil
}

// SetBoot says whether the starts of an image are watched, and what they read
// is read ahead.
func (c *Catalogue) SetBoot(ctx context.Context, name string, on bool) error {
	return c.with(ctx, name, func(ctx context.Context, im *image) error {
		if err := im.gate.Acquire(ctx, 1); err != nil {
			return err
		}
		defer im.gate.Release(1)
		b, err := c.readBootSet(ctx, im.dir())
		switch {
		case err != nil:
			return err
		case !on:
			err = c.host.replaceFile(ctx, im.dir(), bootFile, []byte(bootOff))
		case b.Off:
			err = c.host.remove(ctx, im.dir(), bootFile)
		}
		if err != nil {
			return err
		}
		return c.host.sync(ctx)
	})
}

// BootSet returns what is known of the starts of an image.
func (c *Catalogue) BootSet(ctx context.Context, name string) (*BootSet, error) {
	im, err := c.use(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.release(context.WithoutCancel(ctx), im)
	if err := im.gate.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer im.gate.Release(1)
	return c.readBootSet(ctx, im.dir())
}

// BootScores calls f for the score of each block that the last start has read,
// as the last snapshot has it; holes have none.
func (c *Catalogue) BootScores(ctx context.Context, name string, f func(venti.Score)) error {
	b, err := c.BootSet(ctx, name)
	if err != nil {
		return err
	}
	list, err := c.Log(ctx, name)
	if err != nil || len(list) == 0 {
		return err
	}
	im, err := vdisk.Open(ctx, c.store, list[len(list)-1].Score)
	if err != nil {
		return err
	}
	l := im.Layout()
	for _, r := range b.Ranges {
		for i := range l.Regions {
			g := &l.Regions[i]
			lo, hi := max(r.Off-g.Start, 0), min(r.End()-g.Start, g.Length)
			size := int64(g.DSize)
			for leaf := lo / size; lo < hi && leaf*size < hi; leaf++ {
				s, err := im.Region(i).LeafScore(ctx, leaf)
				if err != nil {
					return err
				}
				if s != venti.EmptyScore {
					f(s)
				}
			}
		}
	}
	return nil
}

func runBoot(ctx context.Context, c *Catalogue, a *call) error {
	name := a.args[0]
	switch a.arg(1) {
	case "on", "off":
		return c.SetBoot(ctx, name, a.arg(1) == "on")
	case "":
	default:
		return invalid("%s is neither on nor off", a.arg(1))
	}
	if a.flag("b") {
		return c.BootScores(ctx, name, func(s venti.Score) { fmt.Fprintf(&a.out, "%v %d\n", s, venti.DataType) })
	}
	b, err := c.BootSet(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case b.Off:
		io.WriteString(&a.out, "off\n")
	case b.Time.IsZero():
		io.WriteString(&a.out, "on, no start was watched yet\n")
	default:
		fmt.Fprintf(&a.out, "on, of %s, %d bytes\n", b.Time.UTC().Format(time.RFC3339), b.bytes())
	}
	for _, r := range b.Ranges {
		fmt.Fprintf(&a.out, "%d %d\n", r.Off, r.Len)
	}
	return nil
}
