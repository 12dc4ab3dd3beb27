package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"strata/vdisk"
	"strata/venti"
)

// clock is how lines of status tell the time.
const clock = "2006/0102 15:04:05.000"

// report returns the line for vnfs, and a comment that says what it is.
func report(disk, sysname, mountpoint string, when time.Time, res *vdisk.Result) []byte {
	score := fmt.Sprintf("%s:%v", res.Layout.Regions[0].Kind, res.Score)
	path := "/" + strings.Trim(mountpoint, "/")
	if path == "/" {
		path = ""
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "mount /%s/%s%s %s %s\n", word(sysname), when.Format("2006/0102"), word(path), score, when.Format("2006/0102/1504"))
	fmt.Fprintf(&b, "# %s %s %s\n", when.Format(clock), word(disk), score)
	return b.Bytes()
}

// word returns s without what would end a word of a line.
func word(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, s)
}

// rootName returns as much of a disk's name as a root holds.
func rootName(name string) string {
	return name[:min(len(name), venti.MaxRootString)]
}

// mountedAt returns the folder where a disk is mounted, or the disk's name if
// it is nowhere.
func mountedAt(disk string) (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	device, err := filepath.EvalSymlinks(disk)
	if err != nil {
		return "", err
	}
	return cmp.Or(findMount(f, device), disk), nil
}

// findMount returns the folder that a table of mounts has for a device, or "".
func findMount(table io.Reader, device string) string {
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && unescape(fields[0]) == device {
			return unescape(fields[1])
		}
	}
	return ""
}

// unescape undoes the \040 and the like of fstab(5).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
