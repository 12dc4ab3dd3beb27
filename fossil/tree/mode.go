package tree

import (
	"math"
	"time"

	"strata/internal/ninep"
	"strata/vac/meta"
)

// modes are the bits, besides those of permission, that both kinds of mode
// have.
var modes = []struct {
	meta  meta.Mode
	ninep ninep.Mode
}{
	{meta.ModeDir, ninep.ModeDir},
	{meta.ModeAppend, ninep.ModeAppend},
	{meta.ModeExclusive, ninep.ModeExcl},
	{meta.ModeTemporary, ninep.ModeTmp},
	{meta.ModeLink, ninep.ModeSymlink},
	{meta.ModeSetuid, ninep.ModeSetuid},
	{meta.ModeSetgid, ninep.ModeSetgid},
	{meta.ModeSticky, ninep.ModeSticky},
	{meta.ModeSnapshot, ninep.ModeMount},
}

// settable are the bits that a wstat may change.
const settable = meta.ModePerm | meta.ModeAppend | meta.ModeExclusive | meta.ModeTemporary |
	meta.ModeSetuid | meta.ModeSetgid | meta.ModeSticky

// fromMeta returns a file's mode as 9P has it. A device or pipe, which a
// file system made from an archive may hold, is a file with its description.
func fromMeta(m meta.Mode) ninep.Mode {
	if m.IsDir() {
		m &^= meta.ModeLink
	}
	v := ninep.Mode(m & meta.ModePerm)
	for _, b := range modes {
		if m&b.meta != 0 {
			v |= b.ninep
		}
	}
	return v
}

// toMeta is the opposite of fromMeta.
func toMeta(v ninep.Mode) meta.Mode {
	m := meta.Mode(v & ninep.ModePerm)
	for _, b := range modes {
		if v&b.ninep != 0 {
			m |= b.meta
		}
	}
	return m
}

// seconds returns a time as files keep it: the nearest that they can.
func seconds(t time.Time) *uint32 {
	s := uint32(min(max(t.Unix(), 0), math.MaxUint32))
	return &s
}

// mix returns a number that depends on all bits of two, and has its first bit
// set: as a qid's path it is that of no file of the active tree.
func mix(a, b uint64) uint64 {
	h := a*0x9e3779b97f4a7c15 ^ b
	for range 2 {
		h ^= h >> 32
		h *= 0xd6e8feb86659fd93
	}
	return h ^ h>>32 | 1<<63
}
