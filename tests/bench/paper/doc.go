// Package paper repeats the experiments of Liguori and Van Hensbergen,
// "Experiences with Content Addressable Storage and Virtual Disks" (WIOV 2008),
// with Debian's disks and this suite, and prints their tables in Markdown:
//
//	make paper
//
// or, to keep the disks, or for some of the tables alone:
//
//	STRATA_PAPER=DIR go test -count=1 -v -timeout 2h -run TestPaper/BlockSizes ./tests/bench/paper
//
// It makes the disks from Debian's packages, which takes most of its time, and
// leaves them in DIR; a run that was interrupted goes on with those that are there.
// It needs 15 GB of disk, the archive that apt is set up with and QEMU; no root, no
// KVM and no loop devices.
package paper
