#!/bin/sh
# The Debian packages that the demo and the tests use.
#
#	deps.sh need     what the demo cannot do without: fails and names the line that installs it
#	deps.sh warn     what the tests use: names the line, since tests that lack a tool skip
#	deps.sh install  installs all of it, as root, unpacks the kernels and makes the disk
#	deps.sh kernels  unpacks what tests/mount, tests/block and tests/qemu need of Debian's kernel
#	                 packages for their guests, in ~/.cache/strata/kernels; installs nothing
#	deps.sh disk     makes the disk with Debian that tests boot, in ~/.cache/strata/disks, as a
#	                 test would that finds none; with apt's archives, in two minutes
set -eu
PATH=$PATH:/usr/sbin:/sbin:/usr/lib/plan9/bin

# missing prints the packages among its arguments, given as command:package,
# whose command is not there.
missing() {
	for pair; do
		command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
	done | sort -u | tr '\n' ' '
}

demo="mke2fs:e2fsprogs debugfs:e2fsprogs e2fsck:e2fsprogs mkfs.vfat:dosfstools mcopy:mtools sfdisk:fdisk mkswap:util-linux"
tests="cc:gcc /usr/include/stdlib.h:libc6-dev diodcat:diod strace:strace mk:9base qemu-img:qemu-utils mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs lvm:lvm2 mkfs.ntfs:ntfs-3g mkfs.exfat:exfatprogs mount.exfat-fuse:exfat-fuse chromium:chromium
	nbdcopy:libnbd-bin nbdsh:python3-libnbd nbd-client:nbd-client fio:fio fusermount3:fuse3 qemu-system-x86_64:qemu-system-x86 busybox:busybox-static xz:xz-utils git:git sqlite3:sqlite3
	mmdebstrap:mmdebstrap lz4:lz4 fakeroot:fakeroot grub-mkimage:grub-common /usr/lib/grub/i386-pc/boot.img:grub-pc-bin
	restic:restic borg:borgbackup casync:casync"

kernels="6.1 6.12"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/strata/kernels

# lackKernels prints the versions of Linux that are not unpacked.
lackKernels() {
	for version in $kernels; do
		ls "$cache/boot/vmlinuz-$version."* "$cache/lib/modules/$version."*/kernel/drivers/block/loop.ko* >/dev/null 2>&1 || printf '%s ' "$version"
	done
}

# unpackKernel downloads the newest kernel of a version that the archive has,
# and keeps its image and the modules for networks, file systems, NBD and loops.
unpackKernel() {
	package=$(apt-cache pkgnames "linux-image-$1." | grep -E '^linux-image-[0-9.]+(-[0-9]+|[+]deb[0-9]+)-amd64$' | sort -V | tail -n 1)
	if [ -z "$package" ]; then
		echo "the archive has no Linux $1: tests/mount will skip it" >&2
		return
	fi
	tmp=$(mktemp -d)
	(cd "$tmp" && apt-get -q download "$package")
	mkdir -p "$cache"
	dpkg-deb --fsys-tarfile "$tmp"/*.deb | tar -x -C "$cache" --wildcards './boot/vmlinuz-*' '*/modules/*/kernel/fs/*' \
		'*/modules/*/kernel/net/*' '*/modules/*/kernel/drivers/virtio/*' '*/modules/*/kernel/drivers/block/nbd.ko*' '*/modules/*/kernel/drivers/block/loop.ko*' \
		'*/modules/*/kernel/crypto/crc32c*' '*/modules/*/kernel/lib/*crc*' '*/modules/*/kernel/drivers/net/*virtio*' \
		'*/modules/*/kernel/drivers/net/net_failover*'
	rm -rf "$tmp"
}

makeDisk() {
	go test -count=1 -run '^TestMake$' ./tests/debian || echo "no disk with Debian: tests of real guests will tell why" >&2
}

case $1 in
need)
	lack=$(missing $demo)
	[ -z "$lack" ] || { echo "missing: apt-get install $lack (or: make deps)" >&2; exit 1; }
	;;
warn)
	lack=$(missing $demo $tests)
	[ -z "$lack" ] || echo "some tests will be skipped; for all of them: apt-get install $lack (or: make deps)" >&2
	lack=$(lackKernels)
	[ -z "$lack" ] || echo "no guests with Linux $lack: sh tests/deps.sh kernels (or: make deps)" >&2
	;;
install)
	lack=$(missing $demo $tests)
	lackLinux=$(lackKernels)
	[ -z "$lack$lackLinux" ] || apt-get update
	[ -z "$lack" ] || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $lack
	for version in $lackLinux; do unpackKernel "$version"; done
	makeDisk
	;;
disk)
	makeDisk
	;;
kernels)
	for version in $(lackKernels); do unpackKernel "$version"; done
	;;
*)
	echo "usage: deps.sh need|warn|install|kernels|disk" >&2
	exit 2
	;;
esac
