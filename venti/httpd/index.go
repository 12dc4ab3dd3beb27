package httpd

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"

	"strata/internal/command"
	"strata/venti/internal/arena"
	"strata/venti/store"
)

// sums are what the pages say of the clumps of an arena, or of many.
type sums struct {
	clumps, compressed int64
	data               int64 // uncompressed
	compressedData     int64 // as it is stored
	storage            int64 // with headers and directory
}

func (t *sums) add(s *arena.Stats) {
	n := int64(s.Clumps)
	t.clumps += n
	t.compressed += int64(s.CClumps)
	t.data += s.UncSize
	t.compressedData += s.Used - n*arena.ClumpHeaderSize
	t.storage += s.Used + n*arena.ClumpInfoSize
}

// indexPage is /index, which scripts cut to find the arenas in the partitions.
func (h *Handler) indexPage(w http.ResponseWriter, _ *http.Request) {
	text(w)
	info := h.store.Info()
	b := bufio.NewWriter(w)
	defer b.Flush()
	ix := &info.Index
	fmt.Fprintf(b, "index=%s version=1 blocksize=%d tabsize=%d\n", ix.Name, ix.BlockSize, ix.TableSize)
	fmt.Fprintf(b, "\tbuckets=%d div=%d\n", ix.Buckets, ix.Div)
	for _, s := range ix.Sections {
		fmt.Fprintf(b, "\tsect=%s for buckets [%d,%d) buckmax=%d\n", s.Name, s.Start, s.Stop, s.Capacity)
	}
	for i := range info.Arenas {
		if info.Arenas[i].Written.Clumps > 0 {
			writeArena(b, &info.Arenas[i])
		}
	}
}

func writeArena(b *bufio.Writer, a *store.ArenaInfo) {
	fmt.Fprintf(b, "arena=%s at index [%d,%d)\n", a.Name, a.Start, a.Stop)
	// The second bracket is a block further than the arena, at both ends:
	// scripts know.
	fmt.Fprintf(b, "\tarena='%s' on %s at [%d,%d)\n", a.Name, a.Partition, a.Base, a.Base+a.Size+2*int64(a.BlockSize))
	fmt.Fprintf(b, "\tversion=%d created=%d modified=%d", a.Version, a.Created, a.Modified)
	if a.Written.Sealed {
		fmt.Fprint(b, " mem=sealed")
	}
	if a.Indexed.Sealed {
		fmt.Fprint(b, " disk=sealed")
	}
	if a.Summing {
		fmt.Fprint(b, " inqueue")
	}
	fmt.Fprintln(b)
	if !a.Seal.IsZero() {
		fmt.Fprintf(b, "\tscore=%v\n", a.Seal)
	}
	for _, s := range []struct {
		what string
		of   *arena.Stats
	}{{"written", &a.Written}, {"indexed", &a.Indexed}} {
		var t sums
		t.add(s.of)
		fmt.Fprintf(b, "\t%s: clumps=%d compressed clumps=%d data=%s compressed data=%s storage=%s\n", s.what, t.clumps, t.compressed,
			command.Commas(t.data), command.Commas(t.compressedData), command.Commas(t.storage))
	}
}

// xindexPage is /xindex.
func (h *Handler) xindexPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	info := h.store.Info()
	b := bufio.NewWriter(w)
	defer b.Flush()
	ix := &info.Index
	fmt.Fprintf(b, "<index name=\"%s\" version=\"1\" blocksize=\"%d\" tabsize=\"%d\" buckets=\"%d\" buckdiv=\"%d\">\n",
		escape(ix.Name), ix.BlockSize, ix.TableSize, ix.Buckets, ix.Div)
	fmt.Fprint(b, "\t<sects>\n")
	for _, s := range ix.Sections {
		fmt.Fprintf(b, "\t\t<sect name=\"%s\" start=\"%d\" stop=\"%d\"/>\n", escape(s.Name), s.Start, s.Stop)
	}
	fmt.Fprint(b, "\t</sects>\n\t<amaps>\n")
	for i := range info.Arenas {
		a := &info.Arenas[i]
		fmt.Fprintf(b, "\t\t<amap name=\"%s\" start=\"%d\" stop=\"%d\"/>\n", escape(a.Name), a.Start, a.Stop)
	}
	fmt.Fprint(b, "\t</amaps>\n\t<arenas>\n")
	for i := range info.Arenas {
		a := &info.Arenas[i]
		// Stop is as Plan 9's server has it: two blocks after start, whatever
		// the arena's size.
		fmt.Fprintf(b, "\t\t<arena name=\"%s\" version=\"%d\" partition=\"%s\" blocksize=\"%d\" start=\"%d\" stop=\"%d\" created=\"%d\" modified=\"%d\"",
			escape(a.Name), a.Version, escape(a.Partition), a.BlockSize, a.Base, a.Base+2*int64(a.BlockSize), a.Created, a.Modified)
		if a.Written.Sealed {
			fmt.Fprint(b, " sealed=\"yes\"")
		}
		if !a.Seal.IsZero() {
			fmt.Fprintf(b, " score=\"%v\"", a.Seal)
		}
		var t sums
		t.add(&a.Written)
		fmt.Fprintf(b, " clumps=\"%d\" compressedclumps=\"%d\" data=\"%d\" compresseddata=\"%d\" storage=\"%d\"/>\n",
			t.clumps, t.compressed, t.data, t.compressedData, t.storage)
	}
	fmt.Fprint(b, "\t</arenas>\n</index>\n")
}

// escape returns s for use in XML or HTML, also between double quotes.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}

// storagePage is /storage.
func (h *Handler) storagePage(w http.ResponseWriter, _ *http.Request) {
	text(w)
	info := h.store.Info()
	var t sums
	var active, space int64
	for i := range info.Arenas {
		a := &info.Arenas[i]
		if a.Written.Clumps > 0 {
			active++
		}
		space += a.Size
		t.add(&a.Written)
	}
	fmt.Fprintf(w, "index=%s\n", info.Index.Name)
	fmt.Fprintf(w, "total arenas=%s active=%s\n", command.Commas(int64(len(info.Arenas))), command.Commas(active))
	fmt.Fprintf(w, "total space=%s used=%s\n", command.Commas(space), command.Commas(t.storage))
	fmt.Fprintf(w, "clumps=%s compressed clumps=%s data=%s compressed data=%s\n",
		command.Commas(t.clumps), command.Commas(t.compressed), command.Commas(t.data), command.Commas(t.compressedData))
}
