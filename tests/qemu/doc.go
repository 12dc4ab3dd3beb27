// Package qemu has real guests, with Debian, boot from live disks and work in
// them: over NBD, over 9pfuse, and over Linux's own 9P client in a guest.
package qemu
