package live

import (
	"fmt"
	"strings"
	"syscall"

	"strata/internal/ninep"
)

// Bounds of names.
const (
	maxElement = 64  // bytes of one element
	maxName    = 512 // bytes in all
)

// badName returns the error for a name that cannot be.
func badName(what, name string) error {
	return &ninep.Error{Text: fmt.Sprintf("bad %s %q", what, name), Errno: syscall.EINVAL}
}

// CheckName returns an error for what no image can be called. A name is a path
// of elements with slashes between them; each is made of letters, digits, '.',
// '_' and '-', and does not begin with '.' or '-'.
func CheckName(name string) error {
	if len(name) > maxName {
		return badName("name", name)
	}
	for e := range strings.SplitSeq(name, "/") {
		if !isElement(e) {
			return badName("name", name)
		}
	}
	return nil
}

// checkFree returns an error for names that new images do not get: what begins
// so is something else to clients of NBD (see Exports).
func checkFree(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if first, _, _ := strings.Cut(name, "/"); first == "files" || first == "score" {
		return &ninep.Error{Text: fmt.Sprintf("bad name %q: what begins with %s/ is not an image", name, first), Errno: syscall.EINVAL}
	}
	return nil
}

func isElement(s string) bool {
	if s == "" || len(s) > maxElement || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// checkTag returns an error for what no tag can be: it is an element of a name.
func checkTag(tag string) error {
	if !isElement(tag) {
		return badName("tag", tag)
	}
	return nil
}

// ParseRef takes apart what names an image or a snapshot of one: web/01,
// web/01@2026/1127.1, web/01@before-upgrade.
func ParseRef(ref string) (name, snap string, err error) {
	name, snap, at := strings.Cut(ref, "@")
	if err := CheckName(name); err != nil {
		return "", "", err
	}
	if at && snap == "" {
		return "", "", badName("snapshot", ref)
	}
	return name, snap, nil
}

// split returns the directory that a name is in, and its last element.
func split(name string) (dir, last string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}
