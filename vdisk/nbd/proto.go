package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"unicode/utf8"
)

// Service is the port of NBD, which addresses without one mean.
const Service = "10809"

// All integers are big-endian. The greeting of the server, and what the client
// answers, are
//
//	"NBDMAGIC"[8] "IHAVEOPT"[8] flags[2]
//	flags[4]
//
// An option of the client, and each of the replies to it, are
//
//	"IHAVEOPT"[8] option[4] length[4] data[length]
//	0x0003e889045565a9[8] option[4] type[4] length[4] data[length]
//
// A request, and a simple reply to it, are
//
//	0x25609513[4] flags[2] type[2] cookie[8] offset[8] length[4] data[length, only of a write]
//	0x67446698[4] error[4] cookie[8] data[of a read without error]
//
// and a chunk of a structured reply is
//
//	0x668e33ef[4] flags[2] type[2] cookie[8] length[4] payload[length]
//
// with the payload, by its type,
//
//	none
//	data    offset[8] data[length-8]
//	hole    offset[8] size[4]
//	status  context[4] (size[4] flags[4])...
//	error   error[4] length[2] text[length]
//	error at an offset  error[4] length[2] text[length] offset[8]
const (
	initMagic     = "NBDMAGIC"
	optMagic      = "IHAVEOPT"
	optReplyMagic = 0x0003e889045565a9
	requestMagic  = 0x25609513
	simpleMagic   = 0x67446698
	chunkMagic    = 0x668e33ef

	optHeadSize   = 16
	requestSize   = 28
	simpleSize    = 16
	chunkHeadSize = 20
	holeSize      = 12
	extentSize    = 8
)

// Flags of the greeting, and of the client's answer.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Options.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10
)

// Types of replies to options.
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4

	repErrUnsup    = 1<<31 + 1
	repErrPolicy   = 1<<31 + 2
	repErrInvalid  = 1<<31 + 3
	repErrTLSReqd  = 1<<31 + 5
	repErrUnknown  = 1<<31 + 6
	repErrShutdown = 1<<31 + 7
	repErrTooBig   = 1<<31 + 9
)

// Items of information about an export.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Transmission flags.
const (
	flagHasFlags     = 1 << 0
	flagReadOnly     = 1 << 1
	flagFlush        = 1 << 2
	flagFUA          = 1 << 3
	flagTrim         = 1 << 5
	flagWriteZeroes  = 1 << 6
	flagDF           = 1 << 7
	flagCanMultiConn = 1 << 8
	flagCache        = 1 << 10
	flagFastZero     = 1 << 11
)

// Requests.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
)

// Flags of requests.
const (
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4
)

// Chunks of structured replies, and their one flag.
const (
	chunkNone        = 0
	chunkData        = 1
	chunkHole        = 2
	chunkStatus      = 5
	chunkError       = 1<<15 + 1
	chunkErrorOffset = 1<<15 + 2

	chunkDone = 1 << 0
)

// Flags of an extent in the context base:allocation.
const (
	stateHole = 1 << 0
	stateZero = 1 << 1
)

// allocation is the one metadata context there is, and allocationID its number.
const (
	allocation   = "base:allocation"
	allocationID = 1
)

// Errors of replies.
const (
	nbdEPERM     = 1
	nbdEIO       = 5
	nbdENOMEM    = 12
	nbdEINVAL    = 22
	nbdENOSPC    = 28
	nbdEOVERFLOW = 75
	nbdENOTSUP   = 95
	nbdESHUTDOWN = 108
)

const (
	// maxString is the longest string that the protocol knows, in bytes.
	maxString = 4096
	// maxOption is the longest data of an option that is looked at, in bytes.
	maxOption = 64 << 10
	// maxPayload is the longest read or write, in bytes: what clients may
	// expect of any server.
	maxPayload = 32 << 20
)

// A request is what a client wants of a disk.
type request struct {
	flags  uint16
	typ    uint16
	cookie uint64
	offset uint64
	length uint32
}

// unpackRequest reads the head of a request. ok is false if it is none.
func unpackRequest(b []byte) (r request, ok bool) {
	if binary.BigEndian.Uint32(b) != requestMagic {
		return r, false
	}
	return request{
		flags:  binary.BigEndian.Uint16(b[4:]),
		typ:    binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}, true
}

func appendSimple(b []byte, code uint32, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, simpleMagic)
	b = binary.BigEndian.AppendUint32(b, code)
	return binary.BigEndian.AppendUint64(b, cookie)
}

func appendChunk(b []byte, flags, typ uint16, cookie uint64, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, chunkMagic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint64(b, cookie)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

func appendHole(b []byte, flags uint16, cookie uint64, off, n int64) []byte {
	b = appendChunk(b, flags, chunkHole, cookie, holeSize)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// appendError appends the last chunk of a reply: an error, at an offset unless
// that is less than 0.
func appendError(b []byte, cookie uint64, code uint32, text string, off int64) []byte {
	typ, n := uint16(chunkError), 6+len(text)
	if off >= 0 {
		typ, n = chunkErrorOffset, n+8
	}
	b = appendChunk(b, chunkDone, typ, cookie, n)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	b = append(b, text...)
	if off >= 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(off))
	}
	return b
}

func appendOptReply(b []byte, option, typ uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, optReplyMagic)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// A cutter takes fields off the front of the data of an option. After what is
// not there it is bad, and all further fields are empty.
type cutter struct {
	b   []byte
	bad bool
}

func (c *cutter) take(n uint32) []byte {
	if c.bad || uint64(n) > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cutter) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cutter) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// string takes a length and as many bytes.
func (c *cutter) string() string { return string(c.take(c.uint32())) }

// checkString tells what is wrong with a string that a client has sent.
func checkString(s string) error {
	switch {
	case len(s) > maxString:
		return fmt.Errorf("string of %d bytes, at most %d", len(s), maxString)
	case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
		return errors.New("string is not UTF-8, or has a NUL")
	}
	return nil
}

// text makes a message fit for a client.
func text(s string) string {
	const most = 1000
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// errorCode returns the error of NBD that err stands for.
func errorCode(err error) uint32 {
	var e *requestError
	if errors.As(err, &e) {
		return e.code
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.EPERM, syscall.EACCES, syscall.EROFS:
			return nbdEPERM
		case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
			return nbdENOSPC
		case syscall.EINVAL:
			return nbdEINVAL
		case syscall.ENOMEM:
			return nbdENOMEM
		case syscall.ESHUTDOWN:
			return nbdESHUTDOWN
		}
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nbdEPERM
	case errors.Is(err, context.Canceled):
		return nbdESHUTDOWN
	}
	return nbdEIO
}

// A requestError is what is wrong with a request.
type requestError struct {
	code uint32
	text string
}

func (e *requestError) Error() string { return e.text }

var (
	errReadOnly = &requestError{nbdEPERM, "the export is read-only"}
	errCommand  = &requestError{nbdEINVAL, "unknown command"}
	errFlags    = &requestError{nbdEINVAL, "flag that does not go with the command"}
	errReserved = &requestError{nbdEINVAL, "a flush has no range"}
	errContext  = &requestError{nbdEINVAL, "no metadata context was set"}
	errEmpty    = &requestError{nbdEINVAL, "block status of nothing"}
	errOutside  = &requestError{nbdEINVAL, "range leaves the export"}
	errFull     = &requestError{nbdENOSPC, "range leaves the export"}
	errTooLong  = &requestError{nbdEINVAL, "longer than the largest payload"}
	errOverflow = &requestError{nbdEOVERFLOW, "longer than the largest payload"}
	errNotFast  = &requestError{nbdENOTSUP, ErrNotFast.Error()}
)
