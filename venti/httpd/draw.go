package httpd

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"strings"
)

// Where the graph is in its picture, in pixels: the largest value and the
// smallest stand at its left, the last at its right.
const (
	leftMargin  = 40
	rightMargin = 20
	glyphWidth  = 6 // with the space to the next
	glyphHeight = 7
)

// colours are pairs: of the area below the values, and of the line above it.
var colours = [...][2]color.NRGBA{
	{{0xcf, 0xcf, 0xcf, 255}, {0x70, 0x70, 0x70, 255}},
	{{0xbb, 0xd4, 0xf1, 255}, {0x2b, 0x6c, 0xb0, 255}},
	{{0xc0, 0xe5, 0xc8, 255}, {0x2f, 0x85, 0x5a, 255}},
	{{0xf7, 0xd3, 0xb5, 255}, {0xb7, 0x57, 0x1c, 255}},
	{{0xf4, 0xc4, 0xc4, 255}, {0xa8, 0x2e, 0x2e, 255}},
	{{0xdc, 0xcb, 0xf0, 255}, {0x6b, 0x46, 0xc1, 255}},
	{{0xbf, 0xe6, 0xe6, 255}, {0x21, 0x7f, 0x86, 255}},
	{{0xec, 0xe0, 0xa6, 255}, {0x8d, 0x75, 0x12, 255}},
}

// draw writes the picture of bins, of which there is one for each pixel, as
// PNG. Where there are no samples nothing is drawn.
func (g *graph) draw(w io.Writer, bins []bin) error {
	lo, hi := int64(0), int64(0)
	var last int64
	for i := range bins {
		if b := &bins[i]; b.samples > 0 {
			lo, hi, last = min(lo, b.min), max(hi, b.max), b.avg()
		}
	}
	if g.minSet {
		lo = g.min
	}
	if g.maxSet {
		hi = g.max
	}
	if hi <= lo {
		hi = lo + 1
	}
	m := image.NewNRGBA(image.Rect(0, 0, g.width, g.height))
	for i := range m.Pix {
		m.Pix[i] = 0xff // white
	}
	bottom := g.height - 1
	// y returns the row of a value; rows at the top and the bottom are for the
	// line.
	y := func(v int64) int {
		v = min(max(v, lo), hi)
		return bottom - 1 - int(float64(v-lo)/float64(hi-lo)*float64(g.height-3))
	}
	area, line := colours[g.fill][0], colours[g.fill][1]
	before := -1
	for i := range bins {
		b, x := &bins[i], leftMargin+i
		m.Set(x, bottom, color.Black)
		if b.samples == 0 {
			before = -1
			continue
		}
		top, at := y(b.max), y(b.avg())
		for row := top; row < bottom; row++ {
			m.Set(x, row, area)
		}
		from, to := at, at
		if before >= 0 { // join it to the one before
			from, to = min(from, before), max(to, before)
		}
		for row := from; row <= to; row++ {
			m.Set(x, row, line)
		}
		before = at
	}
	label(m, shorten(hi), leftMargin-2, 1)
	label(m, shorten(lo), leftMargin-2, g.height-glyphHeight-1)
	label(m, shorten(last), g.width, min(max(y(last)-glyphHeight/2, 1), g.height-glyphHeight-1))
	return png.Encode(w, m)
}

// shorten writes a number in few characters: 200k, 1.5M.
func shorten(n int64) string {
	if n < 0 {
		return "-" + shorten(-n)
	}
	f, unit := float64(n), 0
	for f >= 999.5 && unit < len("kMGTPE") {
		f /= 1000
		unit++
	}
	if unit == 0 {
		return fmt.Sprint(n)
	}
	s := fmt.Sprintf("%.0f", f)
	if f < 9.95 {
		s = strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
	}
	return s + "kMGTPE"[unit-1:unit]
}

// label draws text that ends before x, its top at y.
func label(m *image.NRGBA, text string, x, y int) {
	x -= len(text) * glyphWidth
	for _, c := range []byte(text) {
		for row, bits := range glyphs[c] {
			for col := range 5 {
				if bits>>(4-col)&1 != 0 {
					m.Set(x+col, y+row, color.Black)
				}
			}
		}
		x += glyphWidth
	}
}

// glyphs are the characters of labels, 5 by 7, a row in each byte with the
// left pixel in bit 4.
var glyphs = map[byte][glyphHeight]byte{
	'0': {0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110},
	'1': {0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110},
	'2': {0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111},
	'3': {0b01110, 0b10001, 0b00001, 0b00110, 0b00001, 0b10001, 0b01110},
	'4': {0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010},
	'5': {0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110},
	'6': {0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110},
	'7': {0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000},
	'8': {0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110},
	'9': {0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100},
	'.': {0, 0, 0, 0, 0, 0b01100, 0b01100},
	'-': {0, 0, 0, 0b11111, 0, 0, 0},
	'k': {0b10000, 0b10000, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010},
	'M': {0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001},
	'G': {0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111},
	'T': {0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100},
	'P': {0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000},
	'E': {0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111},
}
