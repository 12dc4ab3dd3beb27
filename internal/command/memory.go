package command

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory returns how many bytes of memory this process may hope for: what the
// machine has, or the least of the limits that control groups (cgroups(7),
// version 2) set it. It returns 0 if it cannot tell.
func Memory() int64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 0
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		own = nil
	}
	return groupMemory(int64(si.Totalram)*int64(si.Unit), string(own), "/sys/fs/cgroup")
}

// groupMemory returns total, or less if the group that own, the text of
// /proc/self/cgroup, names below root or one that it is part of has a limit.
func groupMemory(total int64, own, root string) int64 {
	for line := range strings.Lines(own) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue // of version 1
		}
		for group = filepath.Clean("/" + group); ; group = filepath.Dir(group) {
			text, err := os.ReadFile(filepath.Join(root, group, "memory.max"))
			if err == nil { // the root has none
				limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				if err == nil { // or it is "max"
					total = min(total, limit)
				}
			}
			if group == "/" {
				break
			}
		}
	}
	return total
}
