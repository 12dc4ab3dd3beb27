// Package logs says where the log records of a daemon go: to a stream, as
// lines of text or of JSON; to the machine's syslog; and the last of them to
// memory, for whoever asks later.
//
//	var f logs.Flags
//	f.Register(flagSet)
//	log, recent, err := f.Open(os.Stderr, "venti")
//	defer recent.Close()
//	log.Info("arena is full", "arena", name)
//	for _, e := range recent.Entries() { ... }
package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/pflag"
)

// Flags say how records are written. The zero value writes text, from level
// info on.
type Flags struct {
	Format string     // "text" (or empty), "json"
	Level  slog.Level // records below it are dropped

	// Syslog sends records to the local syslog too, under the name that Open
	// is given. If there is none, a warning says so.
	Syslog bool
}

// Register adds --log-format and --log-level.
func (f *Flags) Register(fs *pflag.FlagSet) {
	fs.StringVar(&f.Format, "log-format", "text", "`format` of messages: text or json")
	fs.TextVar(&f.Level, "log-level", slog.LevelInfo, "write messages from `level` on: debug, info, warn, error")
}

// Open returns a logger that writes to w and to wherever f says, and keeps
// the last records. Writes to w do not overlap. The errors of writing are
// dropped, as package slog does.
func (f Flags) Open(w io.Writer, name string) (*slog.Logger, *Recent, error) {
	r := &Recent{}
	r.level.Set(f.Level)
	opt := &slog.HandlerOptions{Level: &r.level}
	var out slog.Handler
	switch f.Format {
	case "", "text":
		out = slog.NewTextHandler(w, opt)
	case "json":
		out = slog.NewJSONHandler(w, opt)
	default:
		return nil, nil, fmt.Errorf("unknown log format %q: want text or json", f.Format)
	}
	handlers := []slog.Handler{out, newLines(&r.level, r.add)}
	var syslogErr error
	if f.Syslog {
		if r.syslog, syslogErr = openSyslog("", "", name); syslogErr == nil {
			handlers = append(handlers, newLines(&r.level, r.syslog.write))
		}
	}
	log := slog.New(slog.NewMultiHandler(handlers...))
	if syslogErr != nil {
		log.Warn("syslog", "err", syslogErr)
	}
	return log, r, nil
}

// An Entry is one record. Text is its message and attributes as slog's
// TextHandler writes them: msg="arena is full" arena=arena0.
type Entry struct {
	Time  time.Time
	Level slog.Level
	Text  string
}

// keep is how many entries stay in memory.
const keep = 1000

// Recent has the last records of a logger. Its methods may be called at once,
// and all but Close on nil, which has none.
type Recent struct {
	level  slog.LevelVar
	syslog *syslogWriter // or nil; immutable after Open

	mu      sync.Mutex // guards the fields below
	entries []Entry    // a ring once it has keep entries
	next    int        // where in the ring the next one goes
	total   int64
}

func (r *Recent) add(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) < keep {
		r.entries = append(r.entries, e)
	} else {
		r.entries[r.next] = e
		r.next = (r.next + 1) % keep
	}
	r.total++
}

// Entries returns the last records, oldest first.
func (r *Recent) Entries() []Entry {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(append([]Entry(nil), r.entries[r.next:]...), r.entries[:r.next]...)
}

// Total returns how many records there were.
func (r *Recent) Total() int64 {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// Level returns the level from which on records are written and kept.
func (r *Recent) Level() slog.Level {
	if r == nil {
		return slog.LevelInfo
	}
	return r.level.Level()
}

// SetLevel changes it.
func (r *Recent) SetLevel(l slog.Level) {
	if r != nil {
		r.level.Set(l)
	}
}

// Close ends the connection to syslog, if there is one.
func (r *Recent) Close() error {
	if r.syslog == nil {
		return nil
	}
	return r.syslog.Close()
}

// lines is a handler that gives each record, as an Entry, to a function. It
// leaves the writing of messages and attributes to a TextHandler.
type lines struct {
	slog.Handler
	out *lineWriter
}

type lineWriter struct {
	mu   sync.Mutex // held while a record is written to buf, and given away
	buf  bytes.Buffer
	emit func(Entry)
}

func newLines(level slog.Leveler, emit func(Entry)) slog.Handler {
	out := &lineWriter{emit: emit}
	drop := func(groups []string, a slog.Attr) slog.Attr {
		if _, ok := a.Value.Any().(slog.Level); ok && len(groups) == 0 && a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}
	return &lines{slog.NewTextHandler(&out.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: drop}), out}
}

// Handle implements slog.Handler.
func (l *lines) Handle(ctx context.Context, rec slog.Record) error {
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	e := Entry{Time: rec.Time, Level: rec.Level}
	rec.Time = time.Time{} // then it is not written
	l.out.buf.Reset()
	if err := l.Handler.Handle(ctx, rec); err != nil {
		return err
	}
	e.Text = string(bytes.TrimRight(l.out.buf.Bytes(), "\n"))
	l.out.emit(e)
	return nil
}

// WithAttrs implements slog.Handler.
func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lines{l.Handler.WithAttrs(attrs), l.out}
}

// WithGroup implements slog.Handler.
func (l *lines) WithGroup(name string) slog.Handler {
	return &lines{l.Handler.WithGroup(name), l.out}
}
