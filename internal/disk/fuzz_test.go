package disk

import (
	"bytes"
	"testing"
)

// FuzzRange checks that no range reaches outside its file.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"0-", "1k-2m", "-0x10", "010-020", "9223372036854775807t", "-", "5-3", "0x-1"} {
		f.Add(s, int64(1<<20))
	}
	f.Fuzz(func(t *testing.T, text string, size int64) {
		if size < 0 {
			return
		}
		if lo, hi, err := parseRange(text, size); err == nil && (lo < 0 || lo > hi || hi > size) {
			t.Errorf("range %q of %d bytes: [%d,%d)", text, size, lo, hi)
		}
	})
}

// FuzzPlan9Part checks that no table leads outside its disk.
func FuzzPlan9Part(f *testing.F) {
	table := make([]byte, 3*sectorSize)
	copy(table[sectorSize:], "part a 0 2\npart b 1 99\n")
	f.Add(table)
	mbr := make([]byte, 4*sectorSize)
	mbr[510], mbr[511], mbr[446+4], mbr[446+8] = 0x55, 0xaa, mbrPlan9, 2
	copy(mbr[3*sectorSize:], "part a 0 1\n")
	f.Add(mbr)
	f.Fuzz(func(t *testing.T, disk []byte) {
		lo, hi, err := plan9Part(bytes.NewReader(disk), "a", int64(len(disk)))
		if err == nil && (lo < 0 || lo > hi || hi > int64(len(disk))) {
			t.Errorf("[%d,%d) of %d bytes", lo, hi, len(disk))
		}
	})
}
