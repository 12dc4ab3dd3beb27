package qemu

import (
	"fmt"
	"path"
	"slices"
)

// A File is one of an initial root file system.
type File struct {
	Mode uint32 // as stat(2) has it, with the kind
	Data []byte
}

// Link is the Mode of a symbolic link, whose Data is where it leads.
const Link = 0o120777

// pack returns the files, and the directories that lead to them, as the cpio
// archive that the kernel unpacks. An entry is
//
//	magic[6] "070701", ino mode uid gid nlink mtime filesize devmajor devminor
//	rdevmajor rdevminor namesize check: 8 hexadecimal digits each
//	name, with a NUL; zeros up to a multiple of 4
//	data; zeros up to a multiple of 4
//
// and the last one's name is "TRAILER!!!".
func pack(files map[string]File) []byte {
	all := map[string]File{}
	for name, f := range files {
		all[name] = f
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			all[dir] = File{Mode: 0o40755}
		}
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names) // a directory comes before what is in it
	var out []byte
	align := func() {
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	entry := func(i int, name string, f File) {
		out = append(out, "070701"...)
		for _, v := range []int{i, int(f.Mode), 0, 0, 1, 0, len(f.Data), 0, 0, 0, 0, len(name) + 1, 0} {
			out = fmt.Appendf(out, "%08X", v)
		}
		out = append(append(out, name...), 0)
		align()
		out = append(out, f.Data...)
		align()
	}
	for i, name := range names {
		entry(i+1, name, all[name])
	}
	entry(0, "TRAILER!!!", File{})
	return out
}
