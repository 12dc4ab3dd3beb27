package fat

import (
	"bytes"
	"encoding/binary"
	"iter"
	"math/bits"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A table has an entry of 12, 16 or 32 bits for each cluster, little-endian:
// 0 if it is free, the number of the next cluster of its file, or one of
//
//	0xff7         a bad cluster
//	0xff8..0xfff  the last cluster of a file
//
// with as many more f in front as fit, but that of 32 bits the upper four are
// not used. Of 12 bits two entries share the middle one of three bytes, the
// first has its lower half. Entry 0 is the media byte below ones; entry 1 is
// ones, but that its highest bit is 0 while the file system is mounted, and the
// next one after an error of the medium (of 16 and 32 bits).
const (
	entryBad  = 7 // below the largest entry but 15
	entryLast = 8

	// tableChunk is read at once: a multiple of the bytes of two entries of any
	// width.
	tableChunk = 3 * 64 << 10
)

// readTable reads the tables and returns which clusters are in use, counted
// from the first.
func (v *volume) readTable() (*bitmap, error) {
	used, led := newBitmap(v.clusters), newBitmap(v.clusters)
	count := int64(v.clusters) + firstCluster
	length := (count*int64(v.bits) + 7) / 8
	first, other := make([]byte, min(length, tableChunk)), make([]byte, min(length, tableChunk))
	cluster := uint32(0)
	for off := int64(0); off < length; off += tableChunk {
		b := first[:min(length-off, tableChunk)]
		if err := disk.ReadFull(v.r, b, v.tableOff+off); err != nil {
			return nil, err
		}
		for i := 1; i < v.tables; i++ {
			if err := disk.ReadFull(v.r, other[:len(b)], v.tableOff+int64(i)*v.tableSize+off); err != nil {
				return nil, err
			}
			if !bytes.Equal(b, other[:len(b)]) {
				return nil, fsys.Uncertain("its tables differ")
			}
		}
		for i := 0; int64(cluster) < count && (i+1)*v.bits <= len(b)*8; i++ {
			if err := v.entry(cluster, entry(b, i, v.bits), used, led); err != nil {
				return nil, err
			}
			cluster++
		}
	}
	if v.bits == 32 {
		if !v.exists(v.rootCluster) || !used.has(v.rootCluster-firstCluster) {
			return nil, fsys.Uncertain("its root directory is at cluster %d", v.rootCluster)
		}
	}
	for i := range led.words {
		if more := led.words[i] &^ used.words[i]; more != 0 {
			return nil, fsys.Uncertain("a file leads to cluster %d, which is free", i*64+bits.TrailingZeros64(more)+firstCluster)
		}
	}
	return used, nil
}

// entry returns entry i of a piece of the table.
func entry(b []byte, i, width int) uint32 {
	switch width {
	case 12:
		n := uint32(binary.LittleEndian.Uint16(b[i*12/8:]))
		if i%2 == 0 {
			return n & 0xfff
		}
		return n >> 4
	case 16:
		return uint32(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return binary.LittleEndian.Uint32(b[4*i:]) & 0x0fffffff
}

// entry takes note of an entry of the table: in used that the cluster is, and
// in led where it leads to.
func (v *volume) entry(cluster, next uint32, used, led *bitmap) error {
	ones := uint32(0x0fffffff) // the largest entry
	if v.bits < 32 {
		ones = 1<<v.bits - 1
	}
	switch {
	case cluster == 0:
		if next != ones&^0xff|uint32(v.media) {
			return fsys.Uncertain("its table begins with %#x", next)
		}
		return nil
	case cluster == 1:
		clean, good := (ones+1)>>1, (ones+1)>>2
		switch {
		case v.bits == 12 || next&clean != 0 && next&good != 0:
		case next&clean == 0:
			return errMounted
		default:
			return fsys.Uncertain("its medium had errors")
		}
		return nil
	case next == 0:
		return nil
	}
	used.set(cluster - firstCluster)
	last := ones - 15
	switch {
	case next >= last+entryLast, next == last+entryBad:
		return nil
	case !v.exists(next) || next == cluster:
		return fsys.Uncertain("cluster %d leads to %#x", cluster, next)
	case led.has(next - firstCluster):
		return fsys.Uncertain("two clusters lead to cluster %d", next)
	}
	led.set(next - firstCluster)
	return nil
}

// A bitmap has a bit for each cluster, counted from 0.
type bitmap struct{ words []uint64 }

func newBitmap(n uint32) *bitmap { return &bitmap{make([]uint64, (int64(n)+63)/64)} }

func (m *bitmap) set(i uint32)      { m.words[i/64] |= 1 << (i % 64) }
func (m *bitmap) has(i uint32) bool { return m.words[i/64]>>(i%64)&1 != 0 }

// gaps yields the runs of bits below n that are not set.
func (m *bitmap) gaps(n uint32) iter.Seq2[uint32, uint32] {
	return func(yield func(from, to uint32) bool) {
		for i := m.next(0, n, false); i < n; {
			end := m.next(i, n, true)
			if !yield(i, end) {
				return
			}
			i = m.next(end, n, false)
		}
	}
}

// next returns the first bit from i on that is want, or n.
func (m *bitmap) next(i, n uint32, want bool) uint32 {
	for i < n {
		word := m.words[i/64]
		if !want {
			word = ^word
		}
		if word >>= i % 64; word != 0 {
			return min(i+uint32(bits.TrailingZeros64(word)), n)
		}
		i = i/64*64 + 64
	}
	return n
}
