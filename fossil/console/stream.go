package console

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"strata/internal/netaddr"
)

// A console's stream is text: for each line that comes what the command has to
// say, the error if there is one, and the prompt, without an end of line. A
// program that wants to tell these apart begins with a line that is one NUL;
// then each reply is
//
//	what the command has to say  NUL  the error or nothing  NUL  the prompt  NUL
//
// and the first such reply, to that line, is empty but for the prompt. A
// program that hangs up ends its command; whoever types may send the last line
// and hang up for writing.

// maxLine is how long a line may be.
const maxLine = 1 << 20

// hello is the first line of a program.
const hello = "\x00"

var errLine = errors.New("line too long")

// serveConsoles serves the console to all who come until ctx ends.
func (h *Host) serveConsoles(ctx context.Context, ln net.Listener, admit func(io.ReadWriteCloser) (func(), error)) error {
	return netaddr.Serve(ctx, ln, h.log, func(conn net.Conn) func(context.Context) {
		return func(ctx context.Context) {
			defer conn.Close()
			ended, err := admit(conn)
			if err != nil {
				h.log.Info("console", "peer", conn.RemoteAddr().String(), "error", err)
				return
			}
			defer ended()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if err := h.ServeConsole(ctx, conn); err != nil && ctx.Err() == nil {
				h.log.Info("console", "error", err)
			}
		}
	})
}

// ServeConsole serves the console to whoever is at the other end of conn,
// until they hang up.
func (h *Host) ServeConsole(ctx context.Context, conn io.ReadWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	defer reader.Wait() // for the line that it has, which nobody takes any more
	defer cancel()
	c := &stream{s: h.NewSession(), w: bufio.NewWriter(conn)}
	lines := make(chan string)
	var readErr error
	program := false // the reader's
	reader.Go(func() {
		defer close(lines)
		in := bufio.NewReader(conn)
		for first := true; ; first = false {
			line, err := readLine(in)
			if first && line == hello {
				program = true
			}
			if line != "" || err == nil {
				select {
				case lines <- line:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if readErr = err; program {
					cancel()
				}
				return
			}
		}
	})
	first := true
	for line := range lines {
		if first && line == hello {
			c.program = true
			line = ""
		}
		first = false
		if err := c.line(ctx, line); err != nil {
			return err
		}
	}
	if errors.Is(readErr, io.EOF) || errors.Is(readErr, net.ErrClosed) {
		return nil
	}
	return readErr
}

// readLine returns a line without its end. The last one may have none.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return "", errLine
		case err == nil:
			return strings.TrimRight(string(line), "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return string(line), err
		}
	}
}

// A stream is the other end of a console.
type stream struct {
	s       *Session
	w       *bufio.Writer
	program bool // that tells replies apart
}

// line runs a line and replies.
func (c *stream) line(ctx context.Context, line string) error {
	err := c.s.Exec(ctx, c, line)
	switch {
	case c.program && err != nil:
		fmt.Fprintf(c.w, "\x00%s\x00%s\x00", clean(err.Error()), c.s.Prompt())
	case c.program:
		fmt.Fprintf(c.w, "\x00\x00%s\x00", c.s.Prompt())
	case err != nil:
		fmt.Fprintf(c.w, "%v\n%s", err, c.s.Prompt())
	default:
		c.w.WriteString(c.s.Prompt())
	}
	return c.w.Flush()
}

// Write takes what a command has to say: who waits for it sees it at once.
func (c *stream) Write(p []byte) (int, error) {
	if c.program && bytes.IndexByte(p, 0) >= 0 {
		c.w.WriteString(clean(string(p)))
	} else {
		c.w.Write(p)
	}
	return len(p), c.w.Flush()
}

// clean returns text in which nothing is the end of a part.
func clean(text string) string { return strings.ReplaceAll(text, "\x00", "\uFFFD") }
