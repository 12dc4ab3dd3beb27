package debian

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

// grubDir is where Debian keeps GRUB for a PC's BIOS.
const grubDir = "/usr/lib/grub/i386-pc"

// The BIOS loads the disk's first sector, GRUB's boot.img, which loads the
// first sector of the core image, from the sector whose number is a
// little-endian word at 0x5c of it. That loads the rest of the core image, as a
// list at the end of the sector says:
//
//	0x1f4 start[8] length[2] segment[2]
//
// counts in sectors, little-endian; grub-mkimage has filled in all but start.
const (
	bootCode  = 440 // of the first sector are the loader's, and the table's the rest
	bootStart = 0x5c
	coreStart = 0x1f4
)

// loaderConf finds the root and goes on as it says in /boot/grub/grub.cfg.
const loaderConf = `serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --fs-uuid --set=root %s
configfile /boot/grub/grub.cfg
`

// addGRUB makes the disk bootable by a BIOS.
func addGRUB(ctx context.Context, disk, id string) error {
	conf, core := disk+".conf", disk+".core"
	defer os.Remove(conf)
	defer os.Remove(core)
	if err := os.WriteFile(conf, fmt.Appendf(nil, loaderConf, id), 0o600); err != nil {
		return err
	}
	err := run(ctx, "grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "/boot/grub", "-c", conf,
		"biosdisk", "part_gpt", "ext2", "search", "search_fs_uuid", "serial", "terminal", "configfile", "normal", "linux", "boot")
	if err != nil {
		return err
	}
	boot, err := os.ReadFile(filepath.Join(grubDir, "boot.img"))
	if err != nil {
		return err
	}
	image, err := os.ReadFile(core)
	if err != nil {
		return err
	}
	if len(boot) < bootCode || len(image) < 512 || len(image) > (swapStart-loaderStart)*512 {
		return fmt.Errorf("GRUB's images have %d and %d bytes", len(boot), len(image))
	}
	binary.LittleEndian.PutUint64(boot[bootStart:], loaderStart)
	binary.LittleEndian.PutUint64(image[coreStart:], loaderStart+1)
	if err := patch(disk, boot[:bootCode], 0); err != nil {
		return err
	}
	return patch(disk, image, loaderStart*512)
}
