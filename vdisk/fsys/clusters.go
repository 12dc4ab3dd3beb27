package fsys

import (
	"io"

	"strata/internal/disk"
)

// ReadClusters reads into p what a file has at off that lies in clusters of size
// bytes, as far as there are any. place returns where the n-th of the file is, or a
// negative number past the last.
func ReadClusters(r io.ReaderAt, p []byte, off, size int64, place func(n int64) (int64, error)) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		c, err := place(at / size)
		if err != nil || c < 0 {
			return n, err
		}
		skip := at % size
		m := int(min(int64(len(p)-n), size-skip))
		if err := disk.ReadFull(r, p[n:n+m], c+skip); err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}
