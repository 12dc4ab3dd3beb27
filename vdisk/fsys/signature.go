package fsys

import (
	"encoding/binary"
	"io"
	"slices"

	"strata/internal/disk"
)

// A signature is bytes that a kind of file system, or of container for one,
// has at a fixed place. Those of two bytes only (minix, hfs) would be found
// by chance in the counters of others, and are left to nobody.
type signature struct {
	name  string // as blkid(8) calls it, except "ext" for ext2, ext3, ext4 and jbd
	off   int64  // from the region's start
	magic string
}

// signatures are those that could be left behind by, or be hidden under,
// another file system. Container formats that are written at the end of a
// region (RAID metadata 0.90 and 1.0) are not among them: there the file system at
// the start is the real one, and covers less than the region.
var signatures = []signature{
	{"xfs", 0, "XFSB"},
	{"btrfs", 64<<10 + 64, "_BHRfS_M"},
	{"ntfs", 3, "NTFS    "},
	{"exfat", 3, "EXFAT   "},
	{"refs", 3, "ReFS\x00\x00\x00\x00"},
	{"crypto_LUKS", 0, "LUKS\xba\xbe"},
	{"BitLocker", 3, "-FVE-FS-"},
	{"LVM2_member", 24, "LVM2 001"}, // the label may be in any of the first four sectors
	{"LVM2_member", 512 + 24, "LVM2 001"},
	{"LVM2_member", 1024 + 24, "LVM2 001"},
	{"LVM2_member", 1536 + 24, "LVM2 001"},
	{"linux_raid_member", 0, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"},    // metadata 1.1
	{"linux_raid_member", 4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"}, // metadata 1.2
	{"bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{"f2fs", 1024, "\x10\x20\xf5\xf2"},
	{"zfs_member", 16 << 10, "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"}, // the first label's list of names and values
	{"zfs_member", 16 << 10, "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
	{"ceph_bluestore", 0, "bluestore block device"},
	{"DM_integrity", 0, "integrt\x00"},
	{"DM_verity_hash", 0, "verity\x00\x00"},
	{"vdo", 0, "dmvdo001"},
	{"oracleasm", 32, "ORCLDISK"},
	{"jfs", 32 << 10, "JFS1"},
	{"reiserfs", 64<<10 + 52, "ReIsEr"},
	{"reiser4", 64 << 10, "ReIsEr4"},
	{"hfsplus", 1024, "H+\x00\x04"},
	{"hfsplus", 1024, "HX\x00\x05"},
	{"apfs", 32, "NXSB"},
	{"ocfs2", 8 << 10, "OCFSV2"},
	{"gfs2", 64 << 10, "\x01\x16\x19\x70\x00\x00\x00\x01"},
	{"ufs", 8<<10 + 1372, "\x54\x19\x01\x00"},
	{"ufs", 64<<10 + 1372, "\x19\x01\x54\x19"},
	{"iso9660", 32<<10 + 1, "CD001"},
	{"udf", 32<<10 + 1, "NSR02"},
	{"udf", 32<<10 + 1, "BEA01"},
	{"squashfs", 0, "hsqs"},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	{"cramfs", 0, "\x45\x3d\xcd\x28"},
	{"VMFS", 1 << 20, "\x0d\xd0\x01\xc0"},
}

// Signatures names what a region of size bytes looks like, each name once:
// from the shapes of a FAT boot sector and an ext superblock, and from a table
// of magic strings. It looks at nothing else, so what it names may be damaged,
// or only remains.
func Signatures(r io.ReaderAt, size int64) ([]string, error) {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var buf [512]byte
	if size >= 512 {
		if err := disk.ReadFull(r, buf[:], 0); err != nil {
			return nil, err
		}
		if IsFATBoot(buf[:]) {
			add("vfat")
		}
	}
	if size >= 1024+512 {
		if err := disk.ReadFull(r, buf[:], 1024); err != nil {
			return nil, err
		}
		if extSuper(buf[:]) {
			add("ext")
		}
	}
	for _, s := range signatures {
		b := buf[:len(s.magic)]
		if s.off+int64(len(b)) > size {
			continue
		}
		if err := disk.ReadFull(r, b, s.off); err != nil {
			return nil, err
		}
		if string(b) == s.magic {
			add(s.name)
		}
	}
	return names, nil
}

// IsFATBoot tells whether b begins with the boot sector of FAT12, 16 or 32,
// which ends in 0x55aa as a master boot record does. Boot code alone, in a
// record or in front of ext4, has no sizes where these are.
//
//	jump[3] oem[8] sectorsize[2] clustersectors[1] reserved[2] fats[1]
//	rootentries[2] sectors[2] media[1] fatsectors[2] ...
//
// Integers are little-endian. b is of 512 bytes at least.
func IsFATBoot(b []byte) bool {
	sector := binary.LittleEndian.Uint16(b[11:])
	cluster := b[13]
	switch {
	case b[510] != 0x55 || b[511] != 0xaa,
		b[0] != 0xeb && b[0] != 0xe9,
		sector != 512 && sector != 1024 && sector != 2048 && sector != 4096,
		cluster == 0 || cluster&(cluster-1) != 0,
		binary.LittleEndian.Uint16(b[14:]) == 0,
		b[16] == 0 || b[16] > 4,
		b[21] < 0xf0:
		return false
	}
	return true
}

// extSuper tells whether b begins with the superblock of ext2, 3 or 4: its
// magic is two bytes, so its block size and revision are looked at too
// (package ext has the layout).
func extSuper(b []byte) bool {
	return b[0x38] == 0x53 && b[0x39] == 0xef &&
		binary.LittleEndian.Uint32(b[0x18:]) <= 6 &&
		binary.LittleEndian.Uint32(b[0x4c:]) <= 1
}
