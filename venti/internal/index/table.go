package index

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"strata/venti/internal/config"
)

// The table describes the whole index. Every section has the same, as text
// padded with NULs:
//
//	venti index configuration
//	1                                   the version
//	main                                name of the index
//	8192                                size of a bucket
//	2                                   number of sections, then for each
//	isect0	0	415                 name, first bucket, the one past the last
//	isect1	415	702
//	1                                   number of arenas, then for each
//	arena0	1048576	5226496             name, first address, the one past the last
//
// Arenas have one address space. It begins at FirstAddr, so that 0 is never
// an address, and has no gaps; each arena takes as many addresses as it has
// bytes for clumps and their directory.
const (
	tableMagic   = "venti index configuration"
	tableVersion = 1

	// FirstAddr is the first address of the first arena.
	FirstAddr = 1 << 20
	// maxAddr bounds addresses, so that sums of them cannot overflow.
	maxAddr = 1 << 62
)

// An AMap says which addresses an arena has.
type AMap struct {
	Name  string
	Start uint64 // address of the first byte of its first clump
	Stop  uint64 // the one past the last
}

// A table is what the text says.
type table struct {
	index     string
	blockSize int
	sections  []sectionRange
	arenas    []AMap
}

type sectionRange struct {
	name        string
	start, stop uint32
}

// pack returns the text.
func (t *table) pack() []byte {
	b := fmt.Appendf(nil, "%s\n%d\n%s\n%d\n%d\n", tableMagic, tableVersion, t.index, t.blockSize, len(t.sections))
	for _, s := range t.sections {
		b = fmt.Appendf(b, "%s\t%d\t%d\n", s.name, s.start, s.stop)
	}
	b = fmt.Appendf(b, "%d\n", len(t.arenas))
	for _, a := range t.arenas {
		b = fmt.Appendf(b, "%s\t%d\t%d\n", a.Name, a.Start, a.Stop)
	}
	return b
}

// unpackTable reads text up to its first NUL. The names in what it returns
// are valid and distinct, and the ranges follow each other without gaps.
func unpackTable(text []byte) (*table, error) {
	text, _, _ = bytes.Cut(text, []byte{0})
	r := lineReader{rest: string(text)}
	t := new(table)
	if r.line() != tableMagic {
		return nil, fmt.Errorf("no index table")
	}
	if v := r.line(); r.err == nil && v != strconv.Itoa(tableVersion) {
		return nil, fmt.Errorf("index table: unknown version %q", v)
	}
	t.index = r.name(r.line(), nil)
	t.blockSize = int(r.number(r.line(), maxBlockSize))
	names := make(map[string]bool)
	next := uint64(0)
	for range r.number(r.line(), 1<<32-1) {
		name, start, stop := r.mapping(names, next, 1<<32-1)
		if r.err != nil {
			break
		}
		t.sections = append(t.sections, sectionRange{name, uint32(start), uint32(stop)})
		next = stop
	}
	names = make(map[string]bool)
	next = FirstAddr
	for range r.number(r.line(), 1<<32-1) {
		name, start, stop := r.mapping(names, next, maxAddr)
		if r.err != nil {
			break
		}
		t.arenas = append(t.arenas, AMap{name, start, stop})
		next = stop
	}
	if r.err == nil && r.rest != "" {
		r.fail("there is more after the arenas")
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := checkBlockSize(t.blockSize); err != nil {
		return nil, fmt.Errorf("index table: %w", err)
	}
	return t, nil
}

// A lineReader takes text apart. After its first error it returns zeros.
type lineReader struct {
	rest string
	n    int // lines read
	err  error
}

func (r *lineReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("index table: line %d: %s", r.n, fmt.Sprintf(format, args...))
	}
}

// line returns the next line.
func (r *lineReader) line() string {
	line, rest, ok := strings.Cut(r.rest, "\n")
	if !ok {
		r.fail("the text ends after it")
		return ""
	}
	r.rest = rest
	r.n++
	return line
}

// name returns s if it is a valid name that is not in have, and puts it
// there.
func (r *lineReader) name(s string, have map[string]bool) string {
	if err := config.CheckName(s); err != nil {
		r.fail("%v", err)
	} else if have[s] {
		r.fail("name %q is there twice", s)
	} else if have != nil {
		have[s] = true
	}
	return s
}

// number returns the decimal number s, at most limit.
func (r *lineReader) number(s string, limit uint64) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		r.fail("bad number %q", s)
		return 0
	}
	return n
}

// mapping returns the next line's name and range, which starts at the given
// place.
func (r *lineReader) mapping(have map[string]bool, at, limit uint64) (name string, start, stop uint64) {
	f := strings.Split(r.line(), "\t")
	if len(f) != 3 {
		r.fail("want a name and two numbers")
		return "", 0, 0
	}
	name = r.name(f[0], have)
	start, stop = r.number(f[1], limit), r.number(f[2], limit)
	if r.err == nil && (start != at || stop <= start) {
		r.fail("%s is from %d to %d, after the last that ends at %d", name, start, stop, at)
	}
	return name, start, stop
}
