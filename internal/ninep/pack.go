package ninep

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Pack appends the message to b.
func (f *Fcall) Pack(b []byte, d Dialect) ([]byte, error) {
	l := d.layout(f.Type)
	if l == nil {
		return b, fmt.Errorf("pack: no message %d in %s", f.Type, d)
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(f.Type))
	b = binary.LittleEndian.AppendUint16(b, f.Tag)
	b, err := putFields(b, d, f, l.fields)
	if err != nil {
		return b[:start], fmt.Errorf("pack %s: %w", l.name, err)
	}
	if len(b)-start > math.MaxUint32 {
		return b[:start], fmt.Errorf("pack %s: %d bytes", l.name, len(b)-start)
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b, nil
}

// Unpack reads the message in frame, which starts with its size, into f,
// whose other fields are zeroed. When it fails f.Type and f.Tag are still
// right, if the frame has them.
func (f *Fcall) Unpack(frame []byte, d Dialect) error {
	*f = Fcall{Tag: NoTag}
	if len(frame) < headerSize {
		return fmt.Errorf("unpack: %d bytes: %w", len(frame), ErrBotch)
	}
	f.Type = Type(frame[4])
	f.Tag = binary.LittleEndian.Uint16(frame[5:])
	if n := binary.LittleEndian.Uint32(frame); uint64(n) != uint64(len(frame)) {
		return fmt.Errorf("unpack: size %d in a frame of %d bytes: %w", n, len(frame), ErrBotch)
	}
	l := d.layout(f.Type)
	if l == nil {
		return fmt.Errorf("unpack: no message %d in %s: %w", f.Type, d, ErrBotch)
	}
	b, err := getFields(frame[headerSize:], d, f, l.fields, l.optional)
	if err == nil && len(b) != 0 {
		err = fmt.Errorf("%d bytes too many: %w", len(b), ErrBotch)
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", l.name, err)
	}
	return nil
}

// Pack appends the packed stat, with its size in front.
func (s *Stat) Pack(b []byte, d Dialect) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0)
	b, err := putFields(b, d, s, d.statFields())
	if err != nil {
		return b[:start], fmt.Errorf("pack stat: %w", err)
	}
	n := len(b) - start - 2
	if n > math.MaxUint16 {
		return b[:start], fmt.Errorf("pack stat of %q: %d bytes: %w", s.Name, n, ErrNameTooLong)
	}
	binary.LittleEndian.PutUint16(b[start:], uint16(n))
	return b, nil
}

// UnpackStat reads the stat at the start of b and returns what is behind it.
func UnpackStat(b []byte, d Dialect) (Stat, []byte, error) {
	var s Stat
	n, rest, ok := getUint16(b)
	if !ok || int(n) > len(rest) {
		return s, b, fmt.Errorf("unpack stat: cut short: %w", ErrBotch)
	}
	left, err := getFields(rest[:n], d, &s, d.statFields(), false)
	if err == nil && len(left) != 0 {
		err = fmt.Errorf("%d bytes too many: %w", len(left), ErrBotch)
	}
	if err != nil {
		return s, b, fmt.Errorf("unpack stat: %w", err)
	}
	return s, rest[n:], nil
}

// putFields appends the fields of v to b.
func putFields[T any](b []byte, d Dialect, v *T, fs []field[T]) ([]byte, error) {
	le := binary.LittleEndian
	for i := range fs {
		switch p := fs[i].at(v).(type) {
		case *uint8:
			b = append(b, *p)
		case *uint16:
			b = le.AppendUint16(b, *p)
		case *uint32:
			b = le.AppendUint32(b, *p)
		case *uint64:
			b = le.AppendUint64(b, *p)
		case *string:
			if len(*p) > math.MaxUint16 {
				return b, fmt.Errorf("%s has %d bytes: %w", fs[i].name, len(*p), ErrNameTooLong)
			}
			b = le.AppendUint16(b, uint16(len(*p)))
			b = append(b, *p...)
		case *[]string:
			if len(*p) > MaxNames {
				return b, fmt.Errorf("%d %s: %w", len(*p), fs[i].name, ErrTooManyNames)
			}
			b = le.AppendUint16(b, uint16(len(*p)))
			for _, s := range *p {
				if len(s) > math.MaxUint16 {
					return b, fmt.Errorf("a name has %d bytes: %w", len(s), ErrNameTooLong)
				}
				b = le.AppendUint16(b, uint16(len(s)))
				b = append(b, s...)
			}
		case *[]byte:
			b = le.AppendUint32(b, uint32(len(*p)))
			b = append(b, *p...)
		case *Qid:
			b = p.pack(b)
		case *[]Qid:
			if len(*p) > MaxNames {
				return b, fmt.Errorf("%d %s: %w", len(*p), fs[i].name, ErrTooManyNames)
			}
			b = le.AppendUint16(b, uint16(len(*p)))
			for _, q := range *p {
				b = q.pack(b)
			}
		case *Stat:
			at := len(b)
			var err error
			if b, err = p.Pack(append(b, 0, 0), d); err != nil {
				return b, err
			}
			if len(b)-at-2 > math.MaxUint16 {
				return b, fmt.Errorf("stat of %q: %w", p.Name, ErrNameTooLong)
			}
			le.PutUint16(b[at:], uint16(len(b)-at-2))
		}
	}
	return b, nil
}

// getFields reads the fields of v from b and returns what is left of b.
func getFields[T any](b []byte, d Dialect, v *T, fs []field[T], optional bool) ([]byte, error) {
	for i := range fs {
		if optional && i == len(fs)-1 && len(b) == 0 {
			break
		}
		ok := false
		switch p := fs[i].at(v).(type) {
		case *uint8:
			if ok = len(b) >= 1; ok {
				*p, b = b[0], b[1:]
			}
		case *uint16:
			*p, b, ok = getUint16(b)
		case *uint32:
			*p, b, ok = getUint32(b)
		case *uint64:
			if ok = len(b) >= 8; ok {
				*p, b = binary.LittleEndian.Uint64(b), b[8:]
			}
		case *string:
			*p, b, ok = getString(b)
		case *[]string:
			var n uint16
			if n, b, ok = getUint16(b); ok && n > MaxNames {
				return b, fmt.Errorf("%d %s: %w", n, fs[i].name, ErrTooManyNames)
			}
			for range n {
				var s string
				if s, b, ok = getString(b); !ok {
					break
				}
				*p = append(*p, s)
			}
		case *[]byte:
			var n uint32
			if n, b, ok = getUint32(b); ok {
				if ok = uint64(n) <= uint64(len(b)); ok {
					*p, b = b[:n:n], b[n:]
				}
			}
		case *Qid:
			*p, b, ok = unpackQid(b)
		case *[]Qid:
			var n uint16
			if n, b, ok = getUint16(b); ok && n > MaxNames {
				return b, fmt.Errorf("%d %s: %w", n, fs[i].name, ErrTooManyNames)
			}
			for range n {
				var q Qid
				if q, b, ok = unpackQid(b); !ok {
					break
				}
				*p = append(*p, q)
			}
		case *Stat:
			var n uint16
			if n, b, ok = getUint16(b); ok {
				if ok = int(n) <= len(b); ok {
					s, left, err := UnpackStat(b[:n], d)
					if err == nil && len(left) != 0 {
						err = fmt.Errorf("%d bytes behind the stat: %w", len(left), ErrBotch)
					}
					if err != nil {
						return b, err
					}
					*p, b = s, b[n:]
				}
			}
		}
		if !ok {
			return b, fmt.Errorf("%s cut short: %w", fs[i].name, ErrBotch)
		}
	}
	return b, nil
}

func getUint16(b []byte) (uint16, []byte, bool) {
	if len(b) < 2 {
		return 0, b, false
	}
	return binary.LittleEndian.Uint16(b), b[2:], true
}

func getUint32(b []byte) (uint32, []byte, bool) {
	if len(b) < 4 {
		return 0, b, false
	}
	return binary.LittleEndian.Uint32(b), b[4:], true
}

func getString(b []byte) (string, []byte, bool) {
	n, rest, ok := getUint16(b)
	if !ok || int(n) > len(rest) {
		return "", b, false
	}
	return string(rest[:n]), rest[n:], true
}
