package vdisk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// maxRanges is the longest list of ranges that ReadRanges takes, in bytes.
const maxRanges = 1 << 30

// ReadRanges reads a list of ranges of a disk that have changed, in one of
// three forms. The first is lines of two numbers, where a range begins and how
// long it is in bytes, decimal or 0x and hexadecimal; what follows a # is a
// remark:
//
//	# since Monday
//	1048576 65536
//	0x20000000 4096
//
// The second is JSON, as nbdinfo --map=qemu:dirty-bitmap:NAME --json prints it of
// a bitmap that QEMU keeps:
//
//	[{"offset": 0, "length": 65536, "type": 1}, ...]
//
// The offset may be called start; of the entries that have a type, or dirty,
// those with a type of 0, or dirty false, are left out. (What qemu-img map prints
// has data instead, which says another thing, or, of a bitmap, the opposite:
// that is refused.)
//
// The third is XML, as thin_delta prints it of two LVM volumes in a thin pool:
// what is different, and what only one side has, has changed.
func ReadRanges(r io.Reader) ([]Range, error) {
	in := bufio.NewReader(io.LimitReader(r, maxRanges+1))
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	if len(data) > maxRanges {
		return nil, fmt.Errorf("list of ranges of more than %d bytes", maxRanges)
	}
	switch start := bytes.TrimSpace(data); {
	case bytes.HasPrefix(start, []byte("[")):
		return jsonRanges(data)
	case bytes.HasPrefix(start, []byte("<")):
		return deltaRanges(data)
	}
	return textRanges(data)
}

func textRanges(data []byte) ([]Range, error) {
	list := []Range{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var n [2]int64
		if len(f) != 2 {
			return nil, fmt.Errorf("line %d: want two numbers", number)
		}
		for i := range n {
			v, err := strconv.ParseUint(f[i], 0, 63)
			if err != nil {
				return nil, fmt.Errorf("line %d: bad number %q", number, f[i])
			}
			n[i] = int64(v)
		}
		list = append(list, Range{n[0], n[1]})
	}
	return list, nil
}

func jsonRanges(data []byte) ([]Range, error) {
	var all []struct {
		Offset, Start, Length *int64
		Type                  *int64
		Dirty, Data           *bool
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	list := []Range{}
	for i, e := range all {
		at := e.Offset
		if at == nil {
			at = e.Start
		}
		switch {
		case at == nil || e.Length == nil:
			return nil, fmt.Errorf("entry %d: no offset, or no length", i)
		case e.Type == nil && e.Dirty == nil && e.Data != nil:
			return nil, errors.New("this map tells what is data, not what has changed (nbdinfo --map=qemu:dirty-bitmap:NAME --json does)")
		case e.Type != nil && *e.Type == 0, e.Dirty != nil && !*e.Dirty:
			continue
		}
		list = append(list, Range{*at, *e.Length})
	}
	return list, nil
}

func deltaRanges(data []byte) ([]Range, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	list := []Range{}
	block := int64(0) // bytes
	attr := func(e xml.StartElement, name string) (int64, error) {
		for _, a := range e.Attr {
			if a.Name.Local == name {
				if v, err := strconv.ParseUint(a.Value, 10, 63); err == nil {
					return int64(v), nil
				}
			}
		}
		return 0, fmt.Errorf("<%s>: bad %s, or none", e.Name.Local, name)
	}
	for {
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		e, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		switch e.Name.Local {
		case "superblock":
			sectors, err := attr(e, "data_block_size")
			if err != nil {
				return nil, err
			}
			if block = sectors * 512; sectors < 1 || sectors > 1<<21 {
				return nil, fmt.Errorf("data blocks of %d sectors", sectors)
			}
		case "different", "left_only", "right_only":
			begin, err := attr(e, "begin")
			if err != nil {
				return nil, err
			}
			n, err := attr(e, "length")
			if err != nil {
				return nil, err
			}
			if block == 0 || begin > math.MaxInt64/block || n > math.MaxInt64/block {
				return nil, fmt.Errorf("<%s>: %d+%d data blocks of %d bytes", e.Name.Local, begin, n, block)
			}
			list = append(list, Range{begin * block, n * block})
		}
	}
	if block == 0 {
		return nil, errors.New("no <superblock> in the XML")
	}
	return list, nil
}
