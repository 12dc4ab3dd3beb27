package ninep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// An Error is a condition as both kinds of client see it: Plan 9's by its
// text, Linux's by its number. A tree may make its own, with a text that tells
// a person more.
type Error struct {
	Text  string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.Text }

// Is makes an Error match the errors of package io/fs that stand for its
// number, and the Error as which it reaches a client that has numbers only.
func (e *Error) Is(target error) bool {
	if t, ok := target.(*Error); ok {
		return t.Errno == e.Errno && t == errnoError(e.Errno)
	}
	return e.Errno.Is(target)
}

// The errors that trees return and clients get back, alone or wrapped; others
// reach classic clients as their text and Linux ones as EIO. Where the Linux
// kernel's client knows a text of Fossil's (net/9p/error.c) it is that one.
var (
	ErrNotExist      = &Error{"file does not exist", syscall.ENOENT}
	ErrExist         = &Error{"file already exists", syscall.EEXIST}
	ErrPermission    = &Error{"permission denied", syscall.EACCES}
	ErrNotPermitted  = &Error{"Operation not permitted", syscall.EPERM}
	ErrNotDir        = &Error{"not a directory", syscall.ENOTDIR}
	ErrIsDir         = &Error{"is a directory", syscall.EISDIR}
	ErrNotEmpty      = &Error{"directory is not empty", syscall.ENOTEMPTY}
	ErrReadOnly      = &Error{"read only file system", syscall.EROFS}
	ErrFull          = &Error{"file system is full", syscall.ENOSPC}
	ErrInUse         = &Error{"file is in use", syscall.EBUSY}
	ErrExclusive     = &Error{"exclusive use file already open", syscall.EAGAIN}
	ErrRemoved       = &Error{"file has been removed", syscall.ESTALE}
	ErrTooBig        = &Error{"file too big", syscall.EFBIG}
	ErrIO            = &Error{"i/o error", syscall.EIO}
	ErrInvalid       = &Error{"Invalid argument", syscall.EINVAL}
	ErrBadMode       = &Error{"illegal mode", syscall.EINVAL}
	ErrBadOffset     = &Error{"illegal offset", syscall.EINVAL}
	ErrBadName       = &Error{"bad character in file name", syscall.EINVAL}
	ErrNameTooLong   = &Error{"File name too long", syscall.ENAMETOOLONG}
	ErrNotSupported  = &Error{"operation not supported", syscall.EOPNOTSUPP}
	ErrCrossDevice   = &Error{"Invalid cross-device link", syscall.EXDEV}
	ErrInterrupted   = &Error{"Interrupted system call", syscall.EINTR}
	ErrTimeout       = &Error{"Connection timed out", syscall.ETIMEDOUT}
	ErrNoXattr       = &Error{"no such attribute", syscall.ENODATA}
	ErrWstat         = &Error{"wstat prohibited", syscall.EPERM}
	ErrUnknownUser   = &Error{"unknown user", syscall.EINVAL}
	ErrFid           = &Error{"fid unknown or out of range", syscall.EBADF}
	ErrFidInUse      = &Error{"fid already in use", syscall.EBADF}
	ErrFidUse        = &Error{"bad use of fid", syscall.EBADF}
	ErrFidOpen       = &Error{"file already open for I/O", syscall.EBUSY}
	ErrNotReadable   = &Error{"fid not open for read", syscall.EBADF}
	ErrNotWritable   = &Error{"fid not open for write", syscall.EBADF}
	ErrDirOffset     = &Error{"bad offset in directory read", syscall.ESPIPE}
	ErrDirCount      = &Error{"directory entry longer than read count", syscall.EINVAL}
	ErrTooManyFids   = &Error{"too many fids", syscall.EMFILE}
	ErrTooManyNames  = &Error{"too many names in walk", syscall.EPROTO}
	ErrDuplicateTag  = &Error{"duplicate tag", syscall.EPROTO}
	ErrMsize         = &Error{"Tversion: message size too small", syscall.EPROTO}
	ErrTooLong       = &Error{"message too long", syscall.EMSGSIZE}
	ErrNotReady      = &Error{"connection not ready", syscall.EPROTO}
	ErrBotch         = &Error{"protocol botch", syscall.EPROTO}
	ErrAuthNotNeeded = &Error{"authentication not required", syscall.ENOENT} // the number is diod's
	ErrAuth          = &Error{"authentication failed", syscall.ECONNREFUSED}
)

// table lists the errors above, for clients to find them again. Of those with
// one number the first is what a Linux client gets.
var table = []*Error{
	ErrNotExist, ErrExist, ErrPermission, ErrNotPermitted, ErrNotDir, ErrIsDir, ErrNotEmpty, ErrReadOnly, ErrFull, ErrInUse,
	ErrExclusive, ErrRemoved, ErrTooBig, ErrIO, ErrInvalid, ErrBadMode, ErrBadOffset, ErrBadName, ErrNameTooLong,
	ErrNotSupported, ErrCrossDevice, ErrInterrupted, ErrTimeout, ErrNoXattr, ErrWstat, ErrUnknownUser, ErrFid, ErrFidInUse,
	ErrFidUse, ErrFidOpen, ErrNotReadable, ErrNotWritable, ErrDirOffset, ErrDirCount, ErrTooManyFids, ErrBotch,
	ErrTooManyNames, ErrDuplicateTag, ErrMsize, ErrTooLong, ErrNotReady, ErrAuthNotNeeded, ErrAuth,
}

// toError returns what a client is told of err.
func toError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.Canceled):
		return ErrInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return ErrTimeout
	case errors.As(err, &errno):
		if e := errnoError(errno); e.Errno != syscall.EIO {
			return e
		}
		return &Error{err.Error(), syscall.EIO}
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotExist
	case errors.Is(err, fs.ErrExist):
		return ErrExist
	case errors.Is(err, fs.ErrPermission):
		return ErrPermission
	}
	return &Error{err.Error(), syscall.EIO}
}

// errnoError returns the Error that stands for a number.
func errnoError(errno syscall.Errno) *Error {
	for _, e := range table {
		if e.Errno == errno {
			return e
		}
	}
	if int(errno) >= 4096 { // no kernel has such a one
		return &Error{fmt.Sprintf("error %d", int(errno)), syscall.EIO}
	}
	return &Error{errno.Error(), errno}
}

// textError returns the Error that a text stands for; errno is 0 if the
// dialect has none.
func textError(text string, errno syscall.Errno) *Error {
	for _, e := range table {
		if e.Text == text && (errno == 0 || errno == e.Errno) {
			return e
		}
	}
	if errno == 0 {
		errno = syscall.EIO
	}
	return &Error{text, errno}
}
