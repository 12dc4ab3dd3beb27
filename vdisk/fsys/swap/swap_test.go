package swap_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/swap"
)

// An area makes the bytes of a region with a swap area.
type area struct {
	page, pages int
	order       binary.ByteOrder
	version     uint32
	magic       string
	size        int // of the region, pages*page if 0
}

func (a area) bytes() []byte {
	size := a.size
	if size == 0 {
		size = a.page * a.pages
	}
	b := make([]byte, size)
	if a.order == nil {
		a.order = binary.LittleEndian
	}
	if a.magic == "" {
		a.magic = "SWAPSPACE2"
	}
	a.order.PutUint32(b[1024:], a.version)
	a.order.PutUint32(b[1028:], uint32(a.pages-1))
	copy(b[1036:], "0123456789abcdef")
	copy(b[1052:], "a label")
	copy(b[a.page-10:], a.magic)
	return b
}

func free(t *testing.T, fs *fsys.FileSystem) string {
	t.Helper()
	var all []string
	var sum int64
	for x, err := range fs.Free() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d+%d", x.Off, x.Len))
		sum += x.Len
	}
	if sum != fs.FreeBytes {
		t.Errorf("free bytes %d, the map has %d", fs.FreeBytes, sum)
	}
	return strings.Join(all, " ")
}

func TestProbe(t *testing.T) {
	two := area{page: 8192, pages: 100, version: 1}.bytes()
	copy(two[4096-10:], "SWAPSPACE2")
	for _, tc := range []struct {
		name  string
		data  []byte
		free  string // "-" for not swap
		whole string
	}{
		{"empty", nil, "-", ""},
		{"short", make([]byte, 4095), "-", ""},
		{"zeros", make([]byte, 1<<20), "-", ""},
		{"4 KiB", area{page: 4096, pages: 100, version: 1}.bytes(), "4096+405504", ""},
		{"16 KiB", area{page: 16384, pages: 100, version: 1}.bytes(), "16384+1622016", ""},
		{"64 KiB, big-endian", area{page: 65536, pages: 10, version: 1, order: binary.BigEndian}.bytes(), "65536+589824", ""},
		{"tail", area{page: 4096, pages: 100, version: 1, size: 500000}.bytes(), "4096+405504", ""},
		{"one page", area{page: 4096, pages: 1, version: 1}.bytes(), "", ""},
		{"too large", area{page: 4096, pages: 100, version: 1, size: 409599}.bytes(), "", "the swap area is of 409600 bytes, its region of 409599"},
		{"version 2", area{page: 4096, pages: 100, version: 2}.bytes(), "", "unknown version 0x2"},
		{"old", area{page: 4096, pages: 100, magic: "SWAP-SPACE"}.bytes(), "", "old format"},
		{"asleep", area{page: 4096, pages: 100, version: 1, magic: "S1SUSPEND\x00"}.bytes(), "", "asleep"},
		{"asleep 2", area{page: 4096, pages: 100, version: 1, magic: "S2SUSPEND\x00"}.bytes(), "", "asleep"},
		{"asleep, user space", area{page: 4096, pages: 100, version: 1, magic: "ULSUSPEND\x00"}.bytes(), "", "asleep"},
		{"asleep, new", area{page: 4096, pages: 100, version: 1, magic: "LINHIB0001"}.bytes(), "", "asleep"},
		{"asleep, TuxOnIce", area{page: 4096, pages: 100, version: 1, magic: "\xed\xc3\x02\xe9\x98\x56\xe5\x0cxx"}.bytes(), "", "asleep"},
		{"two sizes", two, "", "pages of 4096 and of 8192 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs, err := swap.Probe(bytes.NewReader(tc.data), int64(len(tc.data)))
			if err != nil {
				t.Fatal(err)
			}
			if fs == nil {
				if tc.free != "-" {
					t.Fatal("found nothing")
				}
				return
			}
			if got := free(t, fs); got != tc.free {
				t.Errorf("free %q, want %q", got, tc.free)
			}
			if !strings.Contains(fs.Whole, tc.whole) || tc.whole == "" && fs.Whole != "" {
				t.Errorf("whole because %q, want %q", fs.Whole, tc.whole)
			}
			if fs.Whole == "" && (fs.Label != "a label" || fs.UUID != "30313233-3435-3637-3839-616263646566") {
				t.Errorf("label %q, UUID %s", fs.Label, fs.UUID)
			}
		})
	}
	if _, err := swap.Probe(bytes.NewReader(nil), 1<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("region shorter than it is said to be: got error %v", err)
	}
}

// TestMkswap reads what the machine's own mkswap writes.
func TestMkswap(t *testing.T) {
	bin, err := exec.LookPath("mkswap")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/mkswap"); err != nil {
			t.Skip("mkswap is not installed")
		}
	}
	for _, page := range []int64{4096, 16384, 65536} {
		t.Run(fmt.Sprint(page), func(t *testing.T) {
			const size = 10<<20 + 1000
			name := filepath.Join(t.TempDir(), "swap")
			if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(bin, "-q", "-L", "our swap", "-U", "11223344-5566-7788-99aa-bbccddeeff00",
				"-p", fmt.Sprint(page), name).CombinedOutput()
			if err != nil {
				t.Fatalf("mkswap: %v\n%s", err, out)
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fs, err := fsys.Probe(f, size, swap.Probe)
			if err != nil || fs == nil {
				t.Fatalf("got %v, %v", fs, err)
			}
			if fs.Type != "swap" || fs.Whole != "" || fs.Label != "our swap" ||
				fs.UUID != "11223344-5566-7788-99aa-bbccddeeff00" || fs.BlockSize != int(page) {
				t.Errorf("got %+v", fs)
			}
			want := size/page*page - page
			if got := free(t, fs); got != fmt.Sprintf("%d+%d", page, want) {
				t.Errorf("free %s, want %d+%d", got, page, want)
			}
		})
	}
}

// FuzzProbe reads an area made of a header, a magic at the end of a page of
// 4 KiB<<page, and a length.
func FuzzProbe(f *testing.F) {
	header := func(a area) []byte { return a.bytes()[1024:1068] }
	f.Add(header(area{page: 4096, pages: 2, version: 1}), []byte("SWAPSPACE2"), uint8(0), uint32(8192))
	f.Add(header(area{page: 4096, pages: 1, version: 1}), []byte("S1SUSPEND\x00"), uint8(2), uint32(1<<20))
	f.Add(header(area{page: 4096, pages: 9, version: 1, order: binary.BigEndian}), []byte("SWAPSPACE2"), uint8(4), uint32(1<<20))
	f.Add(header(area{page: 4096, pages: 9, version: 2}), []byte("SWAP-SPACE"), uint8(1), uint32(65536))
	data := make([]byte, 1<<20)
	f.Fuzz(func(t *testing.T, header, magic []byte, page uint8, size uint32) {
		clear(data[:64<<10])
		copy(data[1024:], header[:min(len(header), 44)])
		copy(data[4096<<(page%5)-10:], magic[:min(len(magic), 10)])
		fs, err := swap.Probe(bytes.NewReader(data), int64(min(size, uint32(len(data)))))
		if err != nil {
			t.Fatal(err)
		}
		if fs != nil {
			free(t, fs)
		}
	})
}
