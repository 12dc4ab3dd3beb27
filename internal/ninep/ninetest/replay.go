package ninetest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"strata/internal/ninep"
)

// Replay holds the conversation in a file with the server at the other end of
// conn.
//
// Its lines are messages in the text form of package ninep, blank lines, and
// comments that start with '#'. T lines are sent. An R line waits for the next
// reply with its tag, and for each field that it names compares the value; a
// value, an element of a list or a part of a qid that is * may be anything.
// Rread and Rreaddir know two fields more: entries, the list of names in a
// directory's data, and length, of the data. The dialect is what the last
// Rversion said.
func Replay(t *testing.T, conn io.ReadWriter, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	replay(t, conn, filepath.Base(file), string(text))
}

// replay holds a conversation whose text came from a file with that name.
func replay(t *testing.T, conn io.ReadWriter, file, text string) {
	t.Helper()
	p := player{conn: conn, br: bufio.NewReader(conn), held: make(map[uint16]*ninep.Fcall)}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := p.line(line); err != nil {
			t.Fatalf("%s:%d: %s\n%v", file, i+1, line, err)
		}
	}
	for _, f := range p.held {
		t.Errorf("%s: a reply that nobody asked for: %s", file, f.Text(p.dialect))
	}
}

type player struct {
	conn    io.Writer
	br      *bufio.Reader
	dialect ninep.Dialect
	held    map[uint16]*ninep.Fcall // replies that came before their lines
}

func (p *player) line(line string) error {
	if line[0] == 'T' {
		f, err := ninep.ParseText(line, p.dialect)
		if err != nil {
			return err
		}
		b, err := f.Pack(nil, p.dialect)
		if err != nil {
			return err
		}
		_, err = p.conn.Write(b)
		return err
	}
	want := ninep.SplitWords(line)
	if len(want) < 3 || want[1] != "tag" {
		return fmt.Errorf("an R line starts with its name and tag")
	}
	tag := uint64(ninep.NoTag)
	if want[2] != "~0" {
		var err error
		if tag, err = strconv.ParseUint(want[2], 0, 16); err != nil {
			return err
		}
	}
	got, err := p.reply(uint16(tag))
	if err != nil {
		return err
	}
	if got.Type == ninep.Rversion {
		for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
			if got.Version == d.String() {
				p.dialect = d
			}
		}
	}
	text := got.Text(p.dialect)
	words := ninep.SplitWords(text)
	if words[0] != want[0] {
		return fmt.Errorf("got %s", text)
	}
	if got.Type == ninep.Rread || got.Type == ninep.Rreaddir {
		words = append(words, "length", strconv.Itoa(len(got.Data)))
		if names, err := entries(got, p.dialect); err == nil {
			words = append(words, "entries", fmt.Sprintf("%q", names))
		}
	}
	if err := match(words[1:], want[1:]); err != nil {
		return fmt.Errorf("%w\ngot %s", err, text)
	}
	return nil
}

// reply returns the next reply with a tag.
func (p *player) reply(tag uint16) (*ninep.Fcall, error) {
	if f := p.held[tag]; f != nil {
		delete(p.held, tag)
		return f, nil
	}
	for {
		f, err := p.read()
		if err != nil {
			return nil, err
		}
		if f.Tag == tag {
			return f, nil
		}
		if p.held[f.Tag] != nil {
			return nil, fmt.Errorf("a second reply: %s", f.Text(p.dialect))
		}
		p.held[f.Tag] = f
	}
}

func (p *player) read() (*ninep.Fcall, error) {
	head, err := p.br.Peek(5)
	if err != nil {
		return nil, err
	}
	frame := make([]byte, binary.LittleEndian.Uint32(head))
	if _, err := io.ReadFull(p.br, frame); err != nil {
		return nil, err
	}
	d := p.dialect
	if t := ninep.Type(frame[4]); t == ninep.Rversion || t == ninep.Rerror && d == ninep.Linux {
		d = ninep.Classic // the answer to a Tversion
	}
	f := new(ninep.Fcall)
	return f, f.Unpack(frame, d)
}

// entries returns the names in a directory's data.
func entries(f *ninep.Fcall, d ninep.Dialect) ([]string, error) {
	var names []string
	for b := f.Data; len(b) > 0; {
		var s ninep.Stat
		var e ninep.Dir
		var err error
		if f.Type == ninep.Rreaddir {
			e, b, err = ninep.UnpackDirent(b)
			s.Name = e.Name
		} else {
			s, b, err = ninep.UnpackStat(b, d)
		}
		if err != nil {
			return nil, err
		}
		names = append(names, s.Name)
	}
	return names, nil
}

// match compares the pairs of words in want with those in got.
func match(got, want []string) error {
	if len(want)%2 != 0 {
		return fmt.Errorf("%s has no value", want[len(want)-1])
	}
	for i := 0; i < len(want); i += 2 {
		name, value := want[i], want[i+1]
		j := 0
		for j < len(got) && got[j] != name {
			j += 2
		}
		if j >= len(got) {
			return fmt.Errorf("there is no field %s", name)
		}
		if err := matchValue(name, got[j+1], value); err != nil {
			return err
		}
	}
	return nil
}

func matchValue(name, got, want string) error {
	differ := fmt.Errorf("%s is %s, want %s", name, got, want)
	if !strings.HasPrefix(want, "[") {
		g, w := strings.Split(got, "."), strings.Split(want, ".")
		if strings.HasPrefix(want, `"`) {
			g, w = []string{got}, []string{want}
		}
		if want == "*" {
			return nil
		}
		if len(g) != len(w) {
			return differ
		}
		for i := range w {
			if w[i] != "*" && w[i] != g[i] {
				return differ
			}
		}
		return nil
	}
	if !strings.HasPrefix(got, "[") {
		return differ
	}
	g := ninep.SplitWords(got[1 : len(got)-1])
	w := ninep.SplitWords(want[1 : len(want)-1])
	if name == "stat" {
		return match(g, w)
	}
	if len(g) != len(w) {
		return differ
	}
	for i := range w {
		if matchValue(name, g[i], w[i]) != nil {
			return differ
		}
	}
	return nil
}
