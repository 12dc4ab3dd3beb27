package btrfs

import (
	"cmp"
	"slices"
	"sort"

	"strata/vdisk/fsys"
)

// A chunk, an item of kind 228 whose key has its address as offset, is
//
//	0x00 length[8] owner[8] 0x10 stripelength[8] 0x18 type[8]
//	0x2c stripes[2] substripes[2]
//
// and the stripes, which each have all of it, where type has no bit of
// profileBits but that of DUP:
//
//	device[8] place[8] uuid[16]
const (
	kindChunk   = 228
	chunkObject = 256
	chunkHeader = 0x30
	stripeSize  = 32
	profileBits = 0x7f8
	profileDUP  = 0x20
	maxChunks   = 1 << 20
)

// A chunk is a run of logical addresses.
type chunk struct {
	start, length uint64
	stripes       []uint64 // places on the device

	used    uint64 // bytes of extents
	want    uint64 // what its block group counts
	counted bool   // want is known
}

// unpackChunk reads a chunk, and returns its length in b.
func (v *volume) unpackChunk(k key, b []byte) (c chunk, n int, err error) {
	bad := fsys.Uncertain("bad chunk at %d", k.offset)
	if len(b) < chunkHeader || k.kind != kindChunk || k.object != chunkObject {
		return c, 0, bad
	}
	c = chunk{start: k.offset, length: le64(b)}
	kind, stripes := le64(b[0x18:]), int(le16(b[0x2c:]))
	if profile := kind & profileBits; profile&^profileDUP != 0 || kind&^(profileBits|7) != 0 {
		return c, 0, fsys.Uncertain("chunk %d is of type %#x", k.offset, kind)
	} else if want := map[uint64]int{0: 1, profileDUP: 2}[profile]; stripes != want {
		return c, 0, bad
	}
	n = chunkHeader + stripes*stripeSize
	sector := uint64(v.sectorSize)
	if len(b) < n || c.length == 0 || c.length%sector != 0 || c.start%sector != 0 || c.length > uint64(v.size) || c.start > 1<<62 {
		return c, 0, bad
	}
	for s := b[chunkHeader:n]; len(s) > 0; s = s[stripeSize:] {
		at := le64(s[8:])
		if le64(s) != v.device || at%sector != 0 || at < superOff || at > uint64(v.size)-c.length {
			return c, 0, bad
		}
		c.stripes = append(c.stripes, at)
	}
	return c, n, nil
}

// readChunks reads the chunks of the superblock, and with them all others.
func (v *volume) readChunks(super []byte) error {
	b := super[chunkArray:][:le32(super[0xa0:])]
	for len(b) > 0 {
		if len(b) < keySize {
			return fsys.Uncertain("bad chunks in the superblock")
		}
		c, n, err := v.unpackChunk(unpackKey(b), b[keySize:])
		if err != nil {
			return err
		}
		v.chunkMap = append(v.chunkMap, c)
		b = b[keySize+n:]
	}
	if err := v.sortChunks(); err != nil {
		return err
	}
	var all []chunk
	err := v.tree(v.chunks, func(k key, data []byte) error {
		if k.kind != kindChunk {
			return nil
		}
		c, _, err := v.unpackChunk(k, data)
		if err != nil {
			return err
		}
		if len(all) == maxChunks {
			return fsys.Uncertain("more than %d chunks", maxChunks)
		}
		all = append(all, c)
		return nil
	})
	if err != nil {
		return err
	}
	v.chunkMap = all
	if err := v.sortChunks(); err != nil {
		return err
	}
	// No place of the device is in two chunks.
	type span struct{ from, to uint64 }
	var spans []span
	for _, c := range all {
		for _, s := range c.stripes {
			spans = append(spans, span{s, s + c.length})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			return fsys.Uncertain("two chunks have byte %d of the device", spans[i].from)
		}
	}
	return nil
}

// sortChunks puts the chunks in order, which do not overlap.
func (v *volume) sortChunks() error {
	slices.SortFunc(v.chunkMap, func(a, b chunk) int { return cmp.Compare(a.start, b.start) })
	for i := 1; i < len(v.chunkMap); i++ {
		if last := v.chunkMap[i-1]; v.chunkMap[i].start < last.start+last.length {
			return fsys.Uncertain("two chunks have address %d", v.chunkMap[i].start)
		}
	}
	return nil
}

// chunkAt returns the chunk that n bytes at an address are in, or nil.
func (v *volume) chunkAt(address, n uint64) *chunk {
	i := sort.Search(len(v.chunkMap), func(i int) bool { return v.chunkMap[i].start > address }) - 1
	if i < 0 {
		return nil
	}
	c := &v.chunkMap[i]
	if off := address - c.start; off >= c.length || n > c.length-off {
		return nil
	}
	return c
}

// place returns where n bytes at an address lie on the device.
func (v *volume) place(address uint64, n int64) (int64, error) {
	c := v.chunkAt(address, uint64(n))
	if c == nil || address%uint64(v.sectorSize) != 0 {
		return 0, fsys.Uncertain("address %d is in no chunk", address)
	}
	return int64(c.stripes[0] + (address - c.start)), nil
}
