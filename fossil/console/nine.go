package console

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"

	"strata/internal/ninep"
)

// nineCommands has the command that speaks 9P by hand.
func nineCommands() []Command {
	return []Command{{
		Name: "9p", Args: "message [argument...]",
		Help: "Send a message of 9P2000 on a connection of the console's own, and print the reply.\n" +
			"Tversion msize version; Tauth afid uname aname; Tattach fid afid uname aname; Tflush oldtag;\n" +
			"Twalk fid newfid [name...]; Topen fid mode; Tcreate fid name perm mode; Tread fid offset count;\n" +
			"Twrite fid offset data; Tclunk fid; Tremove fid; Tstat fid;\n" +
			"Twstat fid name uid gid mode mtime length, where ~0 leaves what is; nexttag n, for the next message.\n" +
			"A Tversion ends what was there before; perm and mode of a Twstat are octal.",
		Run: runNine,
	}}
}

// A nineConn is the connection of the command 9p: there is one when it is
// first needed.
type nineConn struct {
	turn chan struct{} // has room for who uses the fields below
	conn net.Conn      // or nil
	in   *bufio.Reader
	tag  uint16 // of the next message
}

func runNine(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, many); err != nil {
		return err
	}
	n := &c.Host.nine
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.Args[0] == "nexttag" {
		return n.setTag(c)
	}
	f, err := parseNine(c)
	if err != nil {
		return err
	}
	f.Tag = n.tag
	if f.Type == ninep.Tversion {
		f.Tag = ninep.NoTag
	}
	if n.conn == nil {
		n.connect(c.Host)
	}
	c.Printf("-> %s\n", f.Text(ninep.Classic))
	stop := context.AfterFunc(ctx, func() { n.conn.Close() })
	defer stop()
	reply, err := n.call(f)
	if err != nil {
		n.conn.Close()
		n.conn = nil
		return fmt.Errorf("9p: %w", err)
	}
	c.Printf("<- %s\n", reply.Text(ninep.Classic))
	return nil
}

func (n *nineConn) setTag(c *Call) error {
	if len(c.Args) != 2 {
		return c.Usage()
	}
	tag, err := strconv.ParseUint(c.Args[1], 0, 16)
	if err != nil {
		return fmt.Errorf("bad tag '%s'", c.Args[1])
	}
	n.tag = uint16(tag)
	return nil
}

// connect makes a connection within the process, whose other end a goroutine
// of the host serves.
func (n *nineConn) connect(h *Host) {
	near, far := net.Pipe()
	n.conn, n.in = near, bufio.NewReader(near)
	srv := ninep.NewServer(h, ninep.Config{Users: h.cfg.Users, Log: h.log})
	h.workers.Go(func() {
		if err := srv.ServeConn(h.serving, far); err != nil {
			h.log.Info("9p connection of the console", "error", err)
		}
	})
}

// call sends a message and reads the reply.
func (n *nineConn) call(f *ninep.Fcall) (*ninep.Fcall, error) {
	b, err := f.Pack(nil, ninep.Classic)
	if err != nil {
		return nil, err
	}
	if _, err := n.conn.Write(b); err != nil {
		return nil, err
	}
	head, err := n.in.Peek(4)
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head)
	if size > ninep.DefaultMsize {
		return nil, ninep.ErrTooLong
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(n.in, frame); err != nil {
		return nil, err
	}
	var r ninep.Fcall
	return &r, r.Unpack(frame, ninep.Classic)
}

// A nineWords reads the arguments of a message, and remembers the first error.
type nineWords struct {
	words []string
	err   error
}

func (w *nineWords) next() string {
	if len(w.words) == 0 {
		w.err = errors.Join(w.err, errors.New("too few arguments"))
		return ""
	}
	s := w.words[0]
	w.words = w.words[1:]
	return s
}

// number reads a number of so many bits; ~0 is all ones.
func (w *nineWords) number(base, bits int) uint64 {
	s := w.next()
	if s == "~0" {
		return math.MaxUint64 >> (64 - bits)
	}
	v, err := strconv.ParseUint(s, base, bits)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("bad number '%s'", s)
	}
	return v
}

// text reads a string that ~0 leaves alone.
func (w *nineWords) text() string {
	s := w.next()
	if s == "~0" {
		return ""
	}
	return s
}

// parseNine reads a message.
func parseNine(c *Call) (*ninep.Fcall, error) {
	w := nineWords{words: c.Args[1:]}
	fid := func() uint32 { return uint32(w.number(0, 32)) }
	f := new(ninep.Fcall)
	switch c.Args[0] {
	case "Tversion":
		*f = ninep.Fcall{Type: ninep.Tversion, Msize: fid(), Version: w.next()}
	case "Tauth":
		*f = ninep.Fcall{Type: ninep.Tauth, Afid: fid(), Uname: w.next(), Aname: w.next()}
	case "Tattach":
		*f = ninep.Fcall{Type: ninep.Tattach, Fid: fid(), Afid: fid(), Uname: w.next(), Aname: w.next()}
	case "Tflush":
		*f = ninep.Fcall{Type: ninep.Tflush, Oldtag: uint16(w.number(0, 16))}
	case "Twalk":
		*f = ninep.Fcall{Type: ninep.Twalk, Fid: fid(), Newfid: fid()}
		f.Names, w.words = w.words, nil
	case "Topen":
		*f = ninep.Fcall{Type: ninep.Topen, Fid: fid(), Mode: uint8(w.number(0, 8))}
	case "Tcreate":
		*f = ninep.Fcall{Type: ninep.Tcreate, Fid: fid(), Name: w.next(), Perm: uint32(w.number(8, 32)), Mode: uint8(w.number(0, 8))}
	case "Tread":
		*f = ninep.Fcall{Type: ninep.Tread, Fid: fid(), Offset: w.number(0, 64), Count: fid()}
	case "Twrite":
		*f = ninep.Fcall{Type: ninep.Twrite, Fid: fid(), Offset: w.number(0, 64), Data: []byte(w.next())}
	case "Tclunk":
		*f = ninep.Fcall{Type: ninep.Tclunk, Fid: fid()}
	case "Tremove":
		*f = ninep.Fcall{Type: ninep.Tremove, Fid: fid()}
	case "Tstat":
		*f = ninep.Fcall{Type: ninep.Tstat, Fid: fid()}
	case "Twstat":
		*f = ninep.Fcall{Type: ninep.Twstat, Fid: fid()}
		f.Stat = ninep.Stat{
			Type: math.MaxUint16, Dev: math.MaxUint32, Qid: ninep.Qid{Type: math.MaxUint8, Vers: math.MaxUint32, Path: math.MaxUint64},
			Atime: math.MaxUint32, Name: w.text(), UID: w.text(), GID: w.text(),
			Mode: uint32(w.number(8, 32)), Mtime: uint32(w.number(0, 32)), Length: w.number(0, 64),
		}
	default:
		return nil, fmt.Errorf("9p: unknown message '%s'", c.Args[0])
	}
	if w.err == nil && len(w.words) > 0 {
		w.err = errors.New("too many arguments")
	}
	if w.err != nil {
		return nil, fmt.Errorf("9p %s: %s", c.Args[0], strings.ReplaceAll(w.err.Error(), "\n", "; "))
	}
	return f, nil
}
