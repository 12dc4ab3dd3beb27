package ninetest

// contents are a file's bytes. Pages that were never written take no room and
// are zeros. The zero value is an empty file.
type contents struct {
	size  int64
	pages map[int64]*page
}

const pageSize = 64 << 10

type page [pageSize]byte

// maxSize is the longest that a file can be.
const maxSize = 1 << 40

// readAt reads into p what there is at off, and returns how many bytes.
func (c *contents) readAt(p []byte, off int64) int {
	p = p[:max(0, min(int64(len(p)), c.size-off))]
	for done := 0; done < len(p); {
		at := off + int64(done)
		rest := p[done:min(len(p), done+pageSize-int(at%pageSize))]
		if pg := c.pages[at/pageSize]; pg != nil {
			copy(rest, pg[at%pageSize:])
		} else {
			clear(rest)
		}
		done += len(rest)
	}
	return len(p)
}

// writeAt writes p at off, and makes the file as long as that needs.
func (c *contents) writeAt(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	if c.pages == nil {
		c.pages = make(map[int64]*page)
	}
	c.size = max(c.size, off+int64(len(p)))
	for len(p) > 0 {
		pg := c.pages[off/pageSize]
		if pg == nil {
			pg = new(page)
			c.pages[off/pageSize] = pg
		}
		n := copy(pg[off%pageSize:], p)
		p, off = p[n:], off+int64(n)
	}
}

// truncate makes the file size bytes long. What it grows by is zeros.
func (c *contents) truncate(size int64) {
	if size < c.size {
		for i := range c.pages {
			if i*pageSize >= size {
				delete(c.pages, i)
			}
		}
		if pg := c.pages[size/pageSize]; pg != nil {
			clear(pg[size%pageSize:])
		}
	}
	c.size = size
}
