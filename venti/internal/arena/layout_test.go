package arena

import "testing"

// TestLayouts adds up the sizes that the comments give.
func TestLayouts(t *testing.T) {
	for _, tc := range []struct {
		name      string
		got, want int
	}{
		{"partition header", partHeaderSize, 4 + 4 + 4 + 4},
		{"clump info", ClumpInfoSize, 1 + 2 + 2 + 20},
		{"clump header", ClumpHeaderSize, 4 + ClumpInfoSize + 1 + 4 + 4},
		{"clump header's encoding", clumpEncOffset, 29},
		{"clump header's time", clumpTimeOffset, ClumpHeaderSize - 4},
		{"arena header, version 4", headerSize4, 84},
		{"arena header, version 5", headerSize5, 88},
		{"trailer's statistics", statsOffset, 72},
		{"trailer, version 4, without extension", trailerFixed4, 106},
		{"trailer, version 5, with extension", trailerSize5, 135},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %d bytes, want %d", tc.name, tc.got, tc.want)
		}
	}
}
