package fsys

import (
	"errors"
	"fmt"
)

// Uncertain returns an error that says, in words for people, why a free map
// cannot be trusted. It becomes the Whole of a FileSystem, so the same bytes
// must always get the same words.
func Uncertain(format string, args ...any) error {
	return uncertainError(fmt.Sprintf(format, args...))
}

type uncertainError string

func (e uncertainError) Error() string { return string(e) }

// Reason returns what Uncertain was told, if err is of that kind.
func Reason(err error) (why string, ok bool) {
	var e uncertainError
	ok = errors.As(err, &e)
	return string(e), ok
}

// Finish is the end of a Prober. fs says what has been found, and err what was
// wrong with it, if anything. walk calls its argument with the free extents
// in order until that returns false, and checks all that it uses. Finish calls
// it once to see that there is nothing uncertain, and makes it the free map.
func Finish(fs *FileSystem, err error, walk func(yield func(Extent) bool) error) (*FileSystem, error) {
	if err == nil {
		err = walk(func(x Extent) bool {
			fs.FreeBytes += x.Len
			return true
		})
	}
	why, uncertain := Reason(err)
	switch {
	case uncertain:
		fs.Whole, fs.FreeBytes = why, 0
		return fs, nil
	case err != nil:
		return nil, err
	}
	fs.FreeMap = func(yield func(Extent, error) bool) {
		err := walk(func(x Extent) bool { return yield(x, nil) })
		if _, uncertain := Reason(err); uncertain {
			err = fmt.Errorf("it has changed since it was probed: %w", err)
		}
		if err != nil {
			yield(Extent{}, err)
		}
	}
	return fs, nil
}
