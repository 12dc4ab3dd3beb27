package console

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"strata/internal/netaddr"
)

// A Client gives commands to a console that is served. It is used by one
// goroutine.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	prompt string
}

// Dial connects to the console at addr, as package netaddr has it.
func Dial(ctx context.Context, addr string) (*Client, error) {
	conn, err := netaddr.Dial(ctx, addr, port)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, in: bufio.NewReader(conn)}
	if err := c.Exec(ctx, io.Discard, hello); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close hangs up.
func (c *Client) Close() error { return c.conn.Close() }

// Prompt returns what stands before a line that is being typed.
func (c *Client) Prompt() string { return c.prompt }

// An Error is what a command has returned: the console can be used further.
type Error string

func (e Error) Error() string { return string(e) }

// Exec runs a line, and copies what it has to say to out. When ctx ends, so do
// the command and the connection. If the command fails the error is an Error.
func (c *Client) Exec(ctx context.Context, out io.Writer, line string) error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	err := c.exec(out, line)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *Client) exec(out io.Writer, line string) error {
	if strings.Contains(line, "\n") {
		return errors.New("a line has an end of line within")
	}
	if _, err := io.WriteString(c.conn, line+"\n"); err != nil {
		return err
	}
	if err := c.copy(out); err != nil {
		return err
	}
	text, err := c.in.ReadString(0)
	if err != nil {
		return hungUp(err)
	}
	prompt, err := c.in.ReadString(0)
	if err != nil {
		return hungUp(err)
	}
	c.prompt = strings.TrimSuffix(prompt, "\x00")
	if text = strings.TrimSuffix(text, "\x00"); text != "" {
		return Error(text)
	}
	return nil
}

// copy copies up to a NUL, as it comes.
func (c *Client) copy(out io.Writer) error {
	for {
		if _, err := c.in.Peek(1); err != nil {
			return hungUp(err)
		}
		part, _ := c.in.Peek(c.in.Buffered())
		text, _, end := strings.Cut(string(part), "\x00")
		n := len(text)
		if end {
			n++
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		c.in.Discard(n)
		if end {
			return nil
		}
	}
}

func hungUp(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the console has hung up")
	}
	return err
}
