package hashtree

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"strata/venti"
)

// Dump writes the tree under a block to w in text, as venti/dump prints it:
// a line for each block and each entry, indented by where it lies, and leaves
// in hexadecimal. Earlier roots are left out. It goes on after a block that
// cannot be read, and returns an error in the end.
func Dump(ctx context.Context, br venti.BlockReader, s venti.Score, t venti.Type, w io.Writer) error {
	d := dumper{br: br, w: bufio.NewWriter(w), buf: make([]byte, venti.MaxBlockSize)}
	if err := d.dump(ctx, 0, s, t); err != nil {
		return fmt.Errorf("dump %v: %w", s, err)
	}
	if err := d.w.Flush(); err != nil {
		return fmt.Errorf("dump %v: %w", s, err)
	}
	if d.bad > 0 {
		return fmt.Errorf("dump %v: %d blocks or entries cannot be read", s, d.bad)
	}
	return nil
}

type dumper struct {
	br  venti.BlockReader
	w   *bufio.Writer
	buf []byte
	bad int
}

// printf writes a line. The writer keeps its first error.
func (d *dumper) printf(indent int, format string, args ...any) {
	fmt.Fprintf(d.w, "%s"+format+"\n", append([]any{strings.Repeat(" ", 4*indent)}, args...)...)
}

func (d *dumper) dump(ctx context.Context, indent int, s venti.Score, t venti.Type) error {
	if indent > 2*maxNesting {
		return fmt.Errorf("block %v: too deep", s)
	}
	if _, err := d.w.Write(nil); err != nil {
		return err // of an earlier write
	}
	n, err := d.br.ReadBlock(ctx, s, t, d.buf)
	if err != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.bad++
		d.printf(indent, "error reading %v: %v", s, err)
		return nil
	}
	if t == venti.DataType {
		d.printf(indent, "%v data n=%d", s, n)
		for row := d.buf[:n]; len(row) > 0; row = row[min(16, len(row)):] {
			d.printf(indent+1, " % x", row[:min(16, len(row))])
		}
		return nil
	}
	data := append([]byte(nil), d.buf[:n]...)
	switch {
	case t == venti.RootType:
		r, err := venti.UnpackRoot(data)
		if err != nil {
			d.bad++
			d.printf(indent, "error reading %v: %v", s, err)
			return nil
		}
		d.printf(indent, "%v root name=%s type=%s prev=%v bsize=%d", s, r.Name, r.Type, r.Prev, r.BlockSize)
		return d.dump(ctx, indent+1, r.Score, venti.DirType)
	case t == venti.DirType:
		d.printf(indent, "%v dir n=%d", s, n)
		for i := range (n + venti.EntrySize - 1) / venti.EntrySize {
			e, err := entryAt(data, i)
			if err != nil {
				d.bad++
				d.printf(indent+1, "%d: %v", i, err)
				continue
			}
			flags := "0" // as C prints it
			if f := e.Flags &^ venti.EntryDir; f != 0 {
				flags = fmt.Sprintf("%#x", f)
			}
			d.printf(indent+1, "%d: gen=%d psize=%d dsize=%d type=%d flags=%s size=%d score=%v",
				i, e.Gen, e.PSize, e.DSize, e.Type(), flags, e.Size, e.Score)
			if e.Active() {
				if err := d.dump(ctx, indent+2, e.Score, e.Type()); err != nil {
					return err
				}
			}
		}
	default:
		d.printf(indent, "%v %v", s, t)
		for i := range n / venti.ScoreSize {
			if err := d.dump(ctx, indent+1, scoreAt(data, i), t-1); err != nil {
				return err
			}
		}
	}
	return nil
}
