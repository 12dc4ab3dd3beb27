package tree

import (
	"bytes"
	"maps"
	"slices"

	"strata/internal/ninep"
)

// pageSize divides every block size.
const pageSize = 1024

// A content is the bytes of a file: of its pages those that are not zeros. It
// does not change.
type content struct {
	size  int64
	pages map[int64][]byte
}

func (c content) read(p []byte, off int64) int {
	n := int(min(int64(len(p)), max(0, c.size-off)))
	p = p[:n]
	clear(p)
	for k := off / pageSize; k*pageSize < off+int64(n); k++ {
		if page := c.pages[k]; page != nil {
			lo := max(off, k*pageSize)
			copy(p[lo-off:], page[lo-k*pageSize:])
		}
	}
	return n
}

// change returns c with p at off.
func (c content) change(p []byte, off int64) content {
	c.pages = maps.Clone(c.pages)
	if c.pages == nil {
		c.pages = map[int64][]byte{}
	}
	end := off + int64(len(p))
	for k := off / pageSize; k*pageSize < end; k++ {
		page := make([]byte, pageSize)
		copy(page, c.pages[k])
		lo := max(off, k*pageSize)
		copy(page[lo-k*pageSize:], p[lo-off:])
		c.pages[k] = page
		if len(bytes.Trim(page, "\x00")) == 0 {
			delete(c.pages, k)
		}
	}
	c.size = max(c.size, end)
	return c
}

// punch returns c with zeros in [off, end).
func (c content) punch(off, end int64) content {
	size := c.size
	c.pages = maps.Clone(c.pages)
	for k := range c.pages {
		lo, hi := max(off, k*pageSize), min(end, (k+1)*pageSize)
		if lo < hi {
			page := c.change(make([]byte, hi-lo), lo).pages[k]
			if c.pages[k] = page; page == nil {
				delete(c.pages, k)
			}
		}
	}
	c.size = size
	return c
}

func (c content) resize(size int64) content {
	if size < c.size {
		c = c.punch(size, c.size)
	}
	c.size = size
	return c
}

// An item is a file of the model. It does not change: what is changed is
// another item, as are all directories above it.
type item struct {
	id    int
	mode  ninep.Mode
	mtime int64  // 0 if it may be any
	gid   string // "" if it may be any
	data  content
	kids  map[string]*item
}

// at returns what is at a path, nil if there is nothing.
func (n *item) at(path []string) *item {
	for _, name := range path {
		if n = n.kids[name]; n == nil {
			return nil
		}
	}
	return n
}

// with returns n with another item at a path, or none if it is nil. Directories
// whose entries change have that time.
func (n *item) with(path []string, leaf *item, now int64) *item {
	if len(path) == 0 {
		return leaf
	}
	c := *n
	c.kids = maps.Clone(n.kids)
	if c.kids == nil {
		c.kids = map[string]*item{}
	}
	var kid *item
	if old := n.kids[path[0]]; len(path) > 1 {
		kid = old.with(path[1:], leaf, now)
	} else if kid = leaf; kid == nil || old == nil || kid.id != old.id {
		c.mtime = now
	}
	if kid == nil {
		delete(c.kids, path[0])
	} else {
		c.kids[path[0]] = kid
	}
	return &c
}

// paths returns the paths of all that is below n, in order.
func (n *item) paths(want func(*item) bool) (list [][]string) {
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		k := n.kids[name]
		if want(k) {
			list = append(list, []string{name})
		}
		for _, p := range k.paths(want) {
			list = append(list, append([]string{name}, p...))
		}
	}
	return list
}

// find returns the path of an item, nil if it is not below n.
func (n *item) find(id int) []string {
	list := n.paths(func(k *item) bool { return k.id == id })
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// everybodys are directories in which every client works. All names that a client makes
// in the root and in these begin with a letter of its own.
var everybodys = []string{"d0", "d1", "d2"}

// merge returns what several clients have made of a tree.
func merge(roots []*item) *item {
	all := &item{kids: map[string]*item{}}
	for _, r := range roots {
		for name, k := range r.kids {
			if slices.Contains(everybodys, name) && all.kids[name] != nil {
				both := *k
				both.kids = maps.Clone(all.kids[name].kids)
				maps.Copy(both.kids, k.kids)
				k = &both
			}
			all.kids[name] = k
		}
	}
	return all
}
