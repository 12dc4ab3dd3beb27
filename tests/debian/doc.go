// Package debian makes disks that boot Debian, for tests, from its packages
// alone, and runs them in QEMU: no root, no KVM and no loop devices.
//
//	img, err := debian.Disk{Packages: []string{"nginx"}}.Make(ctx)
//	m, err := debian.Start(t, debian.Machine{Drive: "file=" + img.Path + ",format=raw,snapshot=on", Kernel: img.Kernel, Initrd: img.Initrd})
//	out := m.Do(t, "systemctl is-system-running")
//	m.PowerOff(t)
//
// A disk has a GPT with three partitions: GRUB for a PC's BIOS, swap, and the
// root in ext4. Its second serial port does what it is told, as root: see Do.
package debian
