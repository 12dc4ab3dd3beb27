#!/bin/sh
# The Debian packages that the demo and the tests use.
#
#	deps.sh need     what the demo cannot do without: fails and names the line that installs it
#	deps.sh warn     what the tests use: names the line, since tests that lack a tool skip
#	deps.sh install  installs all of it, as root
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
tests="diodcat:diod strace:strace mk:9base qemu-img:qemu-utils mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs mkfs.ntfs:ntfs-3g mkfs.exfat:exfatprogs chromium:chromium"

case $1 in
need)
	lack=$(missing $demo)
	[ -z "$lack" ] || { echo "missing: apt-get install $lack (or: make deps)" >&2; exit 1; }
	;;
warn)
	lack=$(missing $demo $tests)
	[ -z "$lack" ] || echo "some tests will be skipped; for all of them: apt-get install $lack (or: make deps)" >&2
	;;
install)
	lack=$(missing $demo $tests)
	[ -n "$lack" ] || exit 0
	apt-get update
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $lack
	;;
*)
	echo "usage: deps.sh need|warn|install" >&2
	exit 2
	;;
esac
