package venti

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// The wire protocol (spec/venti-protocol.md, sections 1 to 5). Both sides
// send a version line at once,
//
//	venti-04:02-comment\n
//
// at most 1024 bytes of 0x20..0x7f, and then exchange messages
//
//	size[4] type[1] tag[1] body
//
// where size counts what follows it, and is size[2] in version 02. A reply has
// the tag of its request. Integers are big-endian and x[s] is a 2-byte length
// with that many bytes, at most 1024 and none of them NUL. The bodies are
//
//	1  Rerror   error[s]
//	2  Tping    -
//	3  Rping    -
//	4  Thello   version[s] uid[s] strength[1] ncrypto[1] crypto[ncrypto] ncodec[1] codec[ncodec]
//	5  Rhello   sid[s] crypto[1] codec[1]
//	6  Tgoodbye -, and has no reply
//	12 Tread    score[20] type[1] pad[1] count[2], or count[4]: the size tells
//	13 Rread    data[]
//	14 Twrite   type[1] pad[3] data[]
//	15 Rwrite   score[20]
//	16 Tsync    -
//	17 Rsync    -
//
// Bytes left over make a message bad. type is a DiskType.

// A msgType is the type byte of a message.
type msgType uint8

const (
	rError   msgType = 1
	tPing    msgType = 2
	rPing    msgType = 3
	tHello   msgType = 4
	rHello   msgType = 5
	tGoodbye msgType = 6
	tRead    msgType = 12
	rRead    msgType = 13
	tWrite   msgType = 14
	rWrite   msgType = 15
	tSync    msgType = 16
	rSync    msgType = 17
)

const (
	maxVersionLine = 1024 // with its newline
	maxString      = 1024

	headSize       = 2                                            // type and tag
	readBodySize   = ScoreSize + 1 + 1 + 2                        // with the short count
	writeHeadSize  = 1 + 3                                        // a Twrite's body before the data
	maxMessageSize = headSize + writeHeadSize + MaxBlockSize + 58 // what a server accepts: a block and 64 bytes
)

// anonymous is the uid and the sid that everybody sends.
const anonymous = "anonymous"

// A framing is how many bytes the size field of a message has.
type framing int

// A version is one that we speak.
type version struct {
	name    string
	framing framing
}

// versions are ours, best first.
var versions = [...]version{{"04", 4}, {"02", 2}}

// versionLine is what both our client and our server send first.
const versionLine = "venti-04:02-strata\n"

// exchangeVersions sends our version line and returns the versions in the
// peer's.
func exchangeVersions(nc net.Conn, in *frameReader) ([]string, error) {
	// Both sides send at once, and a pipe has no buffer.
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(nc, versionLine)
		sent <- err
	}()
	line, err := in.versionLine()
	if err != nil && err != errVersionLong {
		nc.Close() // nobody may be there to take ours
	}
	if senterr := <-sent; err == nil && senterr != nil {
		return nil, fmt.Errorf("write version: %w", senterr)
	}
	if err != nil {
		return nil, fmt.Errorf("read version: %w", lost(err))
	}
	return parseVersionLine(line)
}

// lost names the end of a connection.
func lost(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("closed by the other side: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// parseVersionLine returns the versions in a peer's line, without the newline,
// in its order. The list ends at the dash before the comment.
func parseVersionLine(line []byte) ([]string, error) {
	for _, c := range line {
		if c < 0x20 || c > 0x7f {
			return nil, fmt.Errorf("bad byte %#x in version line %q", c, line)
		}
	}
	list, ok := strings.CutPrefix(string(line), "venti-")
	if !ok {
		return nil, fmt.Errorf("bad version line %q", line)
	}
	list, _, _ = strings.Cut(list, "-")
	return strings.Split(list, ":"), nil
}

// chooseVersion returns the version of a connection between a client and a
// server that sent these lists. Each side decides alone, and plan9port's server
// takes the first in the client's list that it knows; so both of ours do.
func chooseVersion(client, server []string) (version, error) {
	for _, c := range client {
		for _, s := range server {
			for _, v := range versions {
				if c == v.name && s == v.name {
					return v, nil
				}
			}
		}
	}
	return version{}, fmt.Errorf("no common version: client %q, server %q", client, server)
}

func versionNames() []string {
	names := make([]string, len(versions))
	for i, v := range versions {
		names[i] = v.name
	}
	return names
}

// A message is one of either direction. Slices share the memory that it was
// unpacked from.
type message struct {
	typ   msgType
	tag   uint8
	text  []byte   // Rerror: error; Thello: version; Rhello: sid
	uid   []byte   // Thello
	disk  DiskType // Tread, Twrite
	score Score    // Tread, Rwrite
	count uint32   // Tread
	data  []byte   // Rread, Twrite
}

// errBadPacket is the text that answers what unpackMessage refuses.
var errBadPacket = errors.New("bad packet")

// appendHead appends the size, type and tag of a message with n bytes of
// body.
func appendHead(b []byte, f framing, typ msgType, tag uint8, n int) []byte {
	if f == 4 {
		b = binary.BigEndian.AppendUint32(b, uint32(headSize+n))
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(headSize+n))
	}
	return append(b, byte(typ), tag)
}

// pack appends m, with its size field, to b. Strings must be at most maxString
// bytes, and all must fit a message of f.
func (m *message) pack(b []byte, f framing) []byte {
	str := func(s []byte) {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	switch m.typ {
	case rError:
		b = appendHead(b, f, m.typ, m.tag, 2+len(m.text))
		str(m.text)
	case tHello:
		b = appendHead(b, f, m.typ, m.tag, 2+len(m.text)+2+len(m.uid)+3)
		str(m.text)
		str(m.uid)
		b = append(b, 0, 0, 0) // no strength, no crypto, no codec
	case rHello:
		b = appendHead(b, f, m.typ, m.tag, 2+len(m.text)+2)
		str(m.text)
		b = append(b, 0, 0)
	case tRead:
		if m.count < 1<<16 {
			b = appendHead(b, f, m.typ, m.tag, readBodySize)
			b = append(b, m.score[:]...)
			b = append(b, byte(m.disk), 0)
			b = binary.BigEndian.AppendUint16(b, uint16(m.count))
		} else {
			b = appendHead(b, f, m.typ, m.tag, readBodySize+2)
			b = append(b, m.score[:]...)
			b = append(b, byte(m.disk), 0)
			b = binary.BigEndian.AppendUint32(b, m.count)
		}
	case rRead:
		b = appendHead(b, f, m.typ, m.tag, len(m.data))
		b = append(b, m.data...)
	case tWrite:
		b = appendHead(b, f, m.typ, m.tag, writeHeadSize+len(m.data))
		b = append(b, byte(m.disk), 0, 0, 0)
		b = append(b, m.data...)
	case rWrite:
		b = appendHead(b, f, m.typ, m.tag, ScoreSize)
		b = append(b, m.score[:]...)
	case tPing, rPing, tGoodbye, tSync, rSync:
		b = appendHead(b, f, m.typ, m.tag, 0)
	default:
		panic(fmt.Sprintf("venti: pack message of type %d", m.typ))
	}
	return b
}

// unpackMessage reads a message without its size field, which is all of b.
func unpackMessage(b []byte) (message, error) {
	if len(b) < headSize {
		return message{}, errBadPacket
	}
	m := message{typ: msgType(b[0]), tag: b[1]}
	body := b[headSize:]
	ok := true
	str := func() []byte {
		if len(body) < 2 {
			ok = false
			return nil
		}
		n := int(binary.BigEndian.Uint16(body))
		if n > maxString || len(body)-2 < n {
			ok = false
			return nil
		}
		s := body[2 : 2+n]
		for _, c := range s {
			ok = ok && c != 0
		}
		body = body[2+n:]
		return s
	}
	skip := func(n int) {
		if len(body) < n {
			ok = false
			return
		}
		body = body[n:]
	}
	list := func() {
		if len(body) < 1 {
			ok = false
			return
		}
		skip(1 + int(body[0]))
	}
	switch m.typ {
	case tRead:
		if len(body) != readBodySize && len(body) != readBodySize+2 {
			return message{}, errBadPacket
		}
		m.score, m.disk = Score(body), DiskType(body[ScoreSize])
		if count := body[ScoreSize+2:]; len(count) == 2 {
			m.count = uint32(binary.BigEndian.Uint16(count))
		} else {
			m.count = binary.BigEndian.Uint32(count)
		}
		return m, nil
	case tWrite:
		if len(body) < writeHeadSize {
			return message{}, errBadPacket
		}
		m.disk, m.data = DiskType(body[0]), body[writeHeadSize:]
		return m, nil
	case rRead:
		m.data = body
		return m, nil
	case rWrite:
		if len(body) != ScoreSize {
			return message{}, errBadPacket
		}
		m.score = Score(body)
		return m, nil
	case rError:
		m.text = str()
	case tHello:
		m.text, m.uid = str(), str()
		skip(1) // strength
		list()  // crypto
		list()  // codec
	case rHello:
		m.text = str()
		skip(2) // crypto and codec
	case tPing, rPing, tGoodbye, tSync, rSync:
	default:
		return message{}, errBadPacket
	}
	if !ok || len(body) != 0 {
		return message{}, errBadPacket
	}
	return m, nil
}

// wireErrors pairs the errors of a store with the texts by which a client
// knows them. A client matches in this order: by what the text begins with or,
// where that is empty, by what it contains.
var wireErrors = [...]struct {
	err      error
	prefix   string
	contains string
}{
	{err: ErrNotFound, prefix: "no block with score "},
	{err: ErrTooLong, prefix: "read too small"},
	{err: ErrTooLarge, prefix: "lump too large"},
	{err: ErrReadOnly, prefix: "read only"},
	{err: ErrReadOnly, prefix: "read-only server"}, // plan9port's ro
	{err: ErrFull, prefix: "no space left in arenas"},
	{err: ErrBadType, prefix: "bad block type"},
	{err: ErrCollision, prefix: "score collision"},
	{err: ErrCorrupt, contains: "corrupt"},
	{err: ErrCorrupt, prefix: "index and clump "},
	{err: ErrCorrupt, prefix: "score mismatch"},
	{err: ErrCorrupt, contains: "bad magic"},
	{err: ErrCorrupt, contains: "decompression of "},
}

const errUnknownRequest = "unknown request"

// errorOfText returns the error that an Rerror's text stands for, or nil.
func errorOfText(text []byte) error {
	s := string(text)
	for _, w := range wireErrors {
		if w.prefix != "" && strings.HasPrefix(s, w.prefix) || w.contains != "" && strings.Contains(s, w.contains) {
			return w.err
		}
	}
	return nil
}

// textOfError returns what a server says to a client for an error of its
// store, but for ErrNotFound and ErrTooLong, whose texts say more: see
// appendNotFound and appendTooLong.
func textOfError(err error) string {
	text := err.Error()
	switch known := errorOfText([]byte(text)); {
	case known != nil && errors.Is(err, known):
		// The store's own words, as in C or from another server: a client knows them.
	case errors.Is(err, ErrCorrupt):
		text = ErrCorrupt.Error() + ": " + text
	default:
		for _, w := range wireErrors {
			if errors.Is(err, w.err) {
				return w.prefix
			}
		}
	}
	text = strings.ReplaceAll(text, "\x00", "")
	return text[:min(len(text), maxString)]
}

func appendNotFound(b []byte, s Score, d DiskType) []byte {
	b = append(b, "no block with score "...)
	b = hex.AppendEncode(b, s[:])
	b = append(b, '/')
	b = strconv.AppendUint(b, uint64(d.Type()), 10)
	return append(b, " exists"...)
}

func appendTooLong(b []byte, count uint32, need int) []byte {
	b = append(b, "read too small: asked for "...)
	b = strconv.AppendUint(b, uint64(count), 10)
	b = append(b, " need at least "...)
	return strconv.AppendInt(b, int64(need), 10)
}

// A remoteError is an Rerror. Its text is the server's.
type remoteError struct {
	text string
	is   error // of errorOfText; may be nil
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// frameBufferSize holds any message that a server accepts.
const frameBufferSize = 64 << 10

var errVersionLong = errors.New("version line too long")

// errOversize is returned by next for a message that is longer than it may
// be.
var errOversize = errors.New("message too large")

// A frameReader cuts a stream into messages. It belongs to one goroutine.
type frameReader struct {
	src     io.Reader
	framing framing // set when the version is known
	buf     []byte
	r, w    int   // buf[r:w] was received and not yet returned
	skip    int64 // bytes that follow buf[:w] and belong to an oversize message

	received int64 // bytes, in all
}

func newFrameReader(src io.Reader) *frameReader {
	return &frameReader{src: src, buf: make([]byte, frameBufferSize)}
}

// fill reads until n bytes, at most len(buf), are in the buffer. The error
// is io.EOF only when there are none.
func (f *frameReader) fill(n int) error {
	if f.w-f.r >= n {
		return nil
	}
	if f.r == f.w {
		f.r, f.w = 0, 0
	} else if f.r+n > len(f.buf) {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	for f.w-f.r < n {
		m, err := f.src.Read(f.buf[f.w:])
		f.w += m
		f.received += int64(m)
		if err != nil && f.w-f.r < n {
			if err == io.EOF && f.w > f.r {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// versionLine returns the peer's line without its newline. The error is
// errVersionLong or that of the connection.
func (f *frameReader) versionLine() ([]byte, error) {
	for n := 1; n <= maxVersionLine; n++ {
		if err := f.fill(n); err != nil {
			return nil, err
		}
		if f.buf[f.r+n-1] == '\n' {
			line := f.buf[f.r : f.r+n-1]
			f.r += n
			return line, nil
		}
	}
	return nil, errVersionLong
}

// size returns the size field at the start of the buffer.
func (f *frameReader) size() int64 {
	if f.framing == 4 {
		return int64(binary.BigEndian.Uint32(f.buf[f.r:]))
	}
	return int64(binary.BigEndian.Uint16(f.buf[f.r:]))
}

// whole tells whether next would return without reading.
func (f *frameReader) whole() bool {
	n := f.w - f.r
	return f.skip == 0 && n >= int(f.framing) && int64(n-int(f.framing)) >= f.size()
}

// next returns the next message, without its size field, until the call
// after it. The error is io.EOF only at the end of a message. A message longer
// than limit gives its first bytes, type and tag, and errOversize; the
// following call skips the rest of it.
func (f *frameReader) next(limit int) ([]byte, error) {
	if err := f.discard(); err != nil {
		return nil, err
	}
	head := int(f.framing)
	if err := f.fill(head); err != nil {
		return nil, err
	}
	size := f.size()
	if size < headSize {
		return nil, errBadPacket
	}
	n := int(min(size, int64(limit)))
	if size > int64(limit) {
		n = headSize
	}
	if head+n > len(f.buf) {
		f.grow(head + n)
	}
	if err := f.fill(head + n); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	b := f.buf[f.r+head : f.r+head+n]
	f.r += head + n
	if size > int64(limit) {
		f.skip = size - headSize
		return b, errOversize
	}
	return b, nil
}

func (f *frameReader) grow(n int) {
	buf := make([]byte, n)
	f.w = copy(buf, f.buf[f.r:f.w])
	f.r = 0
	f.buf = buf
}

// discard drops what is left of an oversize message.
func (f *frameReader) discard() error {
	for f.skip > 0 {
		if f.r == f.w {
			if err := f.fill(1); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		n := min(f.skip, int64(f.w-f.r))
		f.r += int(n)
		f.skip -= n
	}
	return nil
}
