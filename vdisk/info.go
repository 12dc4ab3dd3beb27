package vdisk

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteInfo writes what l says in lines of text:
//
//	size 2147483648
//	table gpt
//	region    start    length     kind       type  block  free
//	gpt       0        17408      gpt        -     4096   kept
//	p1.ext4   1048576  104857600  partition  ext4  4096   left out
//	p2        ...                                  4096   kept: damaged superblock
func (l *Layout) WriteInfo(w io.Writer) error {
	fmt.Fprintf(w, "size %d\ntable %s\n", l.Size, l.Table)
	for _, n := range l.Notes {
		fmt.Fprintf(w, "note %s\n", Printable(n))
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "region\tstart\tlength\tkind\ttype\tblock\tfree")
	for i := range l.Regions {
		r := &l.Regions[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%d\t%s\n", r.Name, r.Start, r.Length, r.Kind, r.Type(), r.DSize, r.freeWords())
	}
	return t.Flush()
}

// Type returns the type of the file system in r, fit to be printed, or "-".
func (r *Region) Type() string {
	if r.FileSystem == nil || r.FileSystem.Type == "" {
		return "-"
	}
	return Printable(r.FileSystem.Type)
}

// freeWords says what became of free blocks.
func (r *Region) freeWords() string {
	switch {
	case r.PagingOmitted:
		return "left out, and paging files"
	case r.FreeOmitted:
		return "left out"
	case r.Whole != "":
		return "kept: " + Printable(r.Whole)
	}
	return "kept"
}

// WriteInfo writes what is known of one region, one thing to a line.
func (r *Region) WriteInfo(w io.Writer) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s %s\n", name, Printable(value))
		}
	}
	line("name", r.Name)
	line("kind", r.Kind)
	fmt.Fprintf(w, "start %d\nlength %d\n", r.Start, r.Length)
	if p := r.Partition; p != nil {
		fmt.Fprintf(w, "number %d\n", p.Number)
		line("parttype", p.Type)
		line("partuuid", p.UUID)
		line("partlabel", p.Label)
	}
	if v := r.Volume; v != nil {
		line("volume", v.Group+"/"+v.Name)
		line("volumeuuid", v.UUID)
		fmt.Fprintf(w, "volumeoffset %d\nvolumelength %d\n", v.Offset, v.Length)
	}
	if f := r.FileSystem; f != nil {
		line("type", f.Type)
		line("uuid", f.UUID)
		line("label", f.Label)
		fmt.Fprintf(w, "blocksize %d\n", f.BlockSize)
	}
	line("encoder", r.Encoder)
	fmt.Fprintf(w, "dsize %d\npsize %d\n", r.DSize, r.PSize)
	line("free", r.freeWords())
}

// WriteInfo writes what is known of the image without reading its regions:
// its root, and then what Layout.WriteInfo does.
func (im *Image) WriteInfo(w io.Writer) error {
	fmt.Fprintf(w, "score %s:%v\n", Printable(im.root.Type), im.score)
	if im.root.Name != "" {
		fmt.Fprintf(w, "name %s\n", Printable(im.root.Name))
	}
	if !im.root.Prev.IsZero() {
		fmt.Fprintf(w, "prev %v\n", im.root.Prev)
	}
	return im.layout.WriteInfo(w)
}

// Printable replaces what would spoil a line of text, or a terminal: labels
// come from the disk.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
