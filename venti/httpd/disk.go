package httpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/store"
)

// diskPage is /disk:
//
//	/disk                              the partitions
//	/disk?disk=FILE&type=a             an arena partition
//	    &arena=NAME                    an arena of it, with its directory
//	        &cib=N                     of the directory block N, in place of the first
//	        &clump=OFFSET              the clump there, in place of the directory
//	        &score=SCORE               the clumps of a block; with clump, that one must be of it
//	/disk?disk=FILE&type=i             an index section
//	/disk?disk=FILE&type=b             the Bloom filter
//
// FILE must be a partition of the store. Arenas are shown as they are on the
// disk: what was written lately may not be there yet.
func (h *Handler) diskPage(w http.ResponseWriter, r *http.Request) {
	html(w)
	b := bufio.NewWriter(w)
	defer b.Flush()
	info := h.store.Info()
	name, kind := r.FormValue("disk"), r.FormValue("type")
	if name == "" {
		writeDisks(b, &info)
		return
	}
	found := false
	switch kind {
	case "a":
		for _, p := range info.Parts {
			if found = p == name; found {
				if err := writeArenaPart(r.Context(), b, name, r.URL.Query()); err != nil {
					fmt.Fprintln(b, escape(err.Error()))
				}
				break
			}
		}
	case "i":
		for _, s := range info.Index.Sections {
			if found = s.Partition == name; found {
				fmt.Fprintf(b, "<h1>index section %s</h1>\n<pre>\nname=%s index=%s blocksize=%d\nbuckets [%d,%d) of %d, buckmax=%d\n</pre>\n", escape(name),
					escape(s.Name), escape(info.Index.Name), info.Index.BlockSize, s.Start, s.Stop, info.Index.Buckets, s.Capacity)
				break
			}
		}
	case "b":
		if bf := info.Bloom; bf != nil && bf.Partition == name {
			found = true
			fmt.Fprintf(b, "<h1>bloom filter %s</h1>\n<pre>\nsize=%s nhash=%d\nbits=%s ones=%s (about)\n</pre>\n", escape(name),
				command.Commas(int64(bf.Size)), bf.Hashes, command.Commas(bf.Bits), command.Commas(bf.Ones))
		}
	default:
		fmt.Fprintf(b, "unknown disk type %s\n", escape(kind))
		return
	}
	if !found {
		fmt.Fprintf(b, "%s is no such partition of this store\n", escape(name))
	}
}

// link returns a link to a page of /disk; query is names and values in turn.
func link(text string, query ...string) string {
	var q strings.Builder
	for i := 0; i < len(query); i += 2 {
		if i > 0 {
			q.WriteByte('&')
		}
		q.WriteString(query[i] + "=" + strings.ReplaceAll(url.QueryEscape(query[i+1]), "%2F", "/"))
	}
	return fmt.Sprintf(`<a href="/disk?%s">%s</a>`, escape(q.String()), escape(text))
}

func writeDisks(b *bufio.Writer, info *store.Info) {
	fmt.Fprint(b, "<h1>venti disks</h1>\n<pre>\n")
	for _, p := range info.Parts {
		for i := range info.Arenas {
			if a := &info.Arenas[i]; a.Partition == p {
				fmt.Fprintf(b, "%s %s\n", link(p, "disk", p, "type", "a"), escape(a.Name))
				break
			}
		}
	}
	fmt.Fprintln(b)
	for _, s := range info.Index.Sections {
		fmt.Fprintf(b, "%s %s\n", link(s.Partition, "disk", s.Partition, "type", "i"), escape(s.Name))
	}
	if info.Bloom != nil {
		fmt.Fprintf(b, "\n%s bloom filter\n", link(info.Bloom.Partition, "disk", info.Bloom.Partition, "type", "b"))
	}
	fmt.Fprint(b, "</pre>\n")
}

// writeArenaPart writes what the query asks for of an arena partition.
func writeArenaPart(ctx context.Context, b *bufio.Writer, name string, q url.Values) error {
	fmt.Fprintf(b, "<h1>arena partition %s</h1>\n", escape(name))
	f, err := disk.Open(name, disk.Options{ReadOnly: true, Unlocked: true})
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := arena.OpenPartition(f)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "<pre>\nversion=%d blocksize=%d base=%d\n</pre>\n", arena.PartVersion, p.BlockSize, p.ArenaBase)
	want := q.Get("arena")
	if want == "" {
		fmt.Fprint(b, "<h2>table</h2>\n<pre>\n")
		for _, a := range p.Arenas {
			fmt.Fprintf(b, "%s %d %d\n", link(a.Name, "disk", name, "type", "a", "arena", a.Name), a.Start, a.Stop)
		}
		fmt.Fprint(b, "</pre>\n")
		return nil
	}
	for i := range p.Arenas {
		if p.Arenas[i].Name == want {
			a, err := p.OpenArena(i)
			if err != nil {
				return err
			}
			return (&arenaPage{b, name, a}).write(ctx, q)
		}
	}
	return fmt.Errorf("no such arena %s", want)
}

// An arenaPage writes about an arena.
type arenaPage struct {
	*bufio.Writer
	part  string
	arena *arena.Arena
}

func (p *arenaPage) write(ctx context.Context, q url.Values) error {
	a := p.arena
	t, err := a.ReadTrailer()
	if err != nil {
		return err
	}
	fmt.Fprintf(p, "<h2>arena %s</h2>\n<pre>start=%#x end=%#x</pre>\n", escape(a.Name), a.Start, a.Stop)
	if err := a.CheckHeader(); err != nil {
		fmt.Fprintln(p, escape(err.Error()))
	}
	fmt.Fprintf(p, "head:\n<pre>\nversion=%d name=%s blocksize=%d size=%#x clumpmagic=%#x\n</pre>\n",
		a.Version, escape(a.Name), a.BlockSize, a.Stop-a.Start, a.ClumpMagic)
	fmt.Fprintf(p, "tail:\n<pre>\nversion=%d name=%s\nctime=%s\nwtime=%s\nclumpmagic=%#x\nscore %v\n", t.Version, escape(t.Name),
		date(t.CTime), date(t.WTime), t.ClumpMagic, t.Seal)
	for _, s := range []struct {
		name string
		of   *arena.Stats
	}{{"diskstats", &t.Disk}, {"memstats", &t.Mem}} {
		fmt.Fprintf(p, "%s:\n\tclumps=%s cclumps=%s used=%s uncsize=%s sealed=%d\n", s.name, command.Commas(int64(s.of.Clumps)),
			command.Commas(int64(s.of.CClumps)), command.Commas(s.of.Used), command.Commas(s.of.UncSize), truth(s.of.Sealed))
	}
	fmt.Fprint(p, "</pre>\n")

	var score *venti.Score
	if text := q.Get("score"); text != "" {
		s, err := venti.ParseScore(text)
		if err != nil {
			return err
		}
		score = &s
	}
	if text := q.Get("clump"); text != "" {
		off, err := strconv.ParseInt(text, 0, 64)
		if err != nil || off < 0 || off >= t.Mem.Used {
			return fmt.Errorf("no clump at %s", text)
		}
		return p.clump(off, score)
	}
	if score != nil {
		return p.search(ctx, *score, int(t.Mem.Clumps))
	}
	block, text := 0, q.Get("cib")
	if text != "" {
		block, err = strconv.Atoi(text)
		if err != nil || block < 0 || block > int(t.Mem.Clumps)/p.perBlock() {
			return fmt.Errorf("no block %s in the directory", text)
		}
	}
	return p.directory(ctx, block, int(t.Mem.Clumps))
}

func (p *arenaPage) perBlock() int { return p.arena.BlockSize / arena.ClumpInfoSize }

// entry writes a line of the directory.
func (p *arenaPage) entry(c arena.Placed, more string) {
	at := number(c.Off)
	fmt.Fprintf(p, "%5d %6d %7d %v at %s%s\n", c.Info.Type.Type(), c.Info.Size, c.Info.UncSize, c.Info.Score,
		link(at, "disk", p.part, "type", "a", "arena", p.arena.Name, "clump", at, "score", c.Info.Score.String()), more)
}

// directory writes the entries of one block of the directory of n clumps, and
// of each other the first.
func (p *arenaPage) directory(ctx context.Context, block, n int) error {
	fmt.Fprint(p, "<h2>table of contents</h2>\n<pre>\n type   size uncsize score\n")
	defer fmt.Fprint(p, "</pre>\n")
	for c, err := range p.arena.Infos(ctx, n) {
		switch i := c.Clump / p.perBlock(); {
		case err != nil:
			return err
		case i == block:
			p.entry(c, "")
		case c.Clump%p.perBlock() == 0:
			p.entry(c, "  "+link("more", "disk", p.part, "type", "a", "arena", p.arena.Name, "cib", strconv.Itoa(i)))
		}
	}
	return nil
}

// search writes the entries of a score, of the first n.
func (p *arenaPage) search(ctx context.Context, score venti.Score, n int) error {
	fmt.Fprint(p, "<pre>\n")
	defer fmt.Fprint(p, "</pre>\n")
	found := false
	for c, err := range p.arena.Infos(ctx, n) {
		if err != nil {
			return err
		}
		if c.Info.Score == score {
			p.entry(c, "")
			found = true
		}
	}
	if !found {
		fmt.Fprintf(p, "score %v not found in arena %s\n", score, escape(p.arena.Name))
	}
	return nil
}

// clump writes about the clump at off, and whether it is whole.
func (p *arenaPage) clump(off int64, score *venti.Score) error {
	h, data, err := p.arena.ReadClump(off, make([]byte, arena.ClumpHeaderSize+venti.MaxBlockSize))
	if err != nil {
		return err
	}
	fmt.Fprintf(p, "<h2>clump at %s</h2>\n<pre>\nmagic=%#x type=%d size=%d uncsize=%d\nscore=%v\nencoding=%v creator=%d time=%s\n</pre>\n", number(off),
		h.Magic, h.Type.Type(), h.Size, h.UncSize, h.Score, h.Encoding, h.Creator, date(h.Time))
	switch _, err := h.Decode(make([]byte, venti.MaxBlockSize), data); {
	case errors.Is(err, venti.ErrCorrupt), errors.Is(err, arena.ErrEncoding):
		fmt.Fprintln(p, escape(err.Error()))
	case err != nil:
		return err
	case score != nil && h.Score != *score:
		fmt.Fprintf(p, "it is not of score %v\n", score)
	default:
		fmt.Fprintln(p, "the data has the score")
	}
	return nil
}

// number writes an offset as Plan 9's programs do: in hexadecimal, and 0 as
// it is.
func number(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

// date writes a time, in seconds since 1970, in numbers and in words.
func date(sec uint32) string {
	return fmt.Sprintf("%d %s", sec, time.Unix(int64(sec), 0).UTC().Format("Mon Jan _2 15:04:05 GMT 2006"))
}
