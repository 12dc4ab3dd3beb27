package fossil

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/fossil/internal/stream"
	"strata/internal/ninep"
	"strata/vac/meta"
)

// The errors that clients see. Their texts are those of Plan 9's Fossil; where
// package ninep has the same condition, with the words that Linux's client
// knows for it, it is that error.
var (
	ErrNotExist     = ninep.ErrNotExist
	ErrExist        = ninep.ErrExist
	ErrNotDir       = ninep.ErrNotDir
	ErrNotEmpty     = ninep.ErrNotEmpty
	ErrRemoved      = ninep.ErrRemoved
	ErrTooBig       = ninep.ErrTooBig
	ErrFull         = ninep.ErrFull
	ErrIO           = ninep.ErrIO
	ErrOffset       = ninep.ErrBadOffset
	ErrMode         = ninep.ErrBadMode
	ErrNameTooLong  = ninep.ErrNameTooLong
	ErrInside       = ninep.ErrInvalid
	ErrNotFile      = &ninep.Error{Text: "not a file", Errno: syscall.EISDIR}
	ErrReadOnly     = &ninep.Error{Text: "file is read only", Errno: syscall.EROFS}
	ErrSnapReadOnly = &ninep.Error{Text: "snapshot is read only", Errno: syscall.EROFS}
	ErrDeleted      = &ninep.Error{Text: "snapshot has been deleted", Errno: syscall.ESTALE}
	ErrNotArchived  = &ninep.Error{Text: "file is not archived", Errno: syscall.EIO}
	ErrRemoveRoot   = &ninep.Error{Text: "cannot remove root", Errno: syscall.EBUSY}
	ErrVenti        = &ninep.Error{Text: "venti i/o error", Errno: syscall.EIO}
	ErrName         = &ninep.Error{Text: "illegal path element", Errno: syscall.EINVAL}
	ErrBadMeta      = &ninep.Error{Text: "corrupted meta data", Errno: syscall.EIO}
	ErrBadEntry     = &ninep.Error{Text: "corrupted file entry", Errno: syscall.EIO}
	ErrBadLabel     = &ninep.Error{Text: "corrupted block label", Errno: syscall.EIO}
	ErrMismatch     = &ninep.Error{Text: "block label mismatch", Errno: syscall.EIO}
)

// translations say which error of the packages below is which of ours. Those
// that tell a client all it needs replace the one below; the others keep it, for
// the log.
var translations = []struct {
	below error
	ours  *ninep.Error
	whole bool
}{
	{stream.ErrRemoved, ErrRemoved, true},
	{stream.ErrDeleted, ErrDeleted, true},
	{stream.ErrReadOnly, ErrSnapReadOnly, true},
	{stream.ErrTooBig, ErrTooBig, true},
	{buffer.ErrFull, ErrFull, true},
	{buffer.ErrReadOnly, ErrReadOnly, true},
	{buffer.ErrVenti, ErrVenti, false},
	{buffer.ErrMismatch, ErrMismatch, false},
	{buffer.ErrAddress, ErrMismatch, false},
	{format.ErrLabel, ErrBadLabel, false},
	{format.ErrEntry, ErrBadEntry, false},
	{meta.ErrCorrupt, ErrBadMeta, false},
}

// translate makes an error of ours of one of the packages below.
func translate(err error) error {
	var ours *ninep.Error
	if err == nil || errors.As(err, &ours) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, t := range translations {
		if errors.Is(err, t.below) {
			if t.whole {
				return t.ours
			}
			return &coded{t.ours, err}
		}
	}
	return &coded{ErrIO, err}
}

// A coded is an error with the one of ours that clients see for it.
type coded struct {
	ours  *ninep.Error
	cause error
}

func (e *coded) Error() string {
	text := e.cause.Error()
	if strings.HasPrefix(text, e.ours.Text) {
		return text
	}
	return e.ours.Text + ": " + text
}

func (e *coded) Unwrap() []error { return []error{e.ours, e.cause} }
