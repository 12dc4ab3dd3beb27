package ninetest

import (
	"embed"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep"
)

// talk has the conversations that every tree can hold: read-*.txt, and where
// files may be made write-*.txt.
//
//go:embed talk/*.txt
var talk embed.FS

// A sample is a file that the conversations read.
type sample struct {
	path   []string
	length int64
	head   []byte // its first bytes
}

// maxHead is how many bytes of a sample are compared.
const maxHead = 64

// talks holds the conversations with a server of the tree.
func talks(t *testing.T, fs ninep.FS, cfg TreeConfig, file sample) {
	entries, err := talk.ReadDir("talk")
	if err != nil {
		t.Fatal(err)
	}
	write := elements(cfg.Write)
	dir := file.path[:max(0, len(file.path)-1)]
	user := cfg.User
	if user == "" {
		user = ninep.NoUser
	}
	name := ""
	if n := len(file.path); n > 0 {
		name = file.path[n-1]
	}
	vars := strings.NewReplacer(
		"$user", strconv.Quote(user), "$aname", strconv.Quote(cfg.Aname),
		"$fileqids", qids(file.path), "$file", quoted(file.path), "$dirqids", qids(dir), "$dir", quoted(dir),
		"$writeqids", qids(write), "$write", quoted(write), "$name", strconv.Quote(name),
		"$length", fmt.Sprint(file.length), "$headlength", fmt.Sprint(len(file.head)), "$head", strconv.Quote(string(file.head)),
		"$some", "*",
	)
	for _, e := range entries {
		kind, _, _ := strings.Cut(e.Name(), "-")
		t.Run("talk/"+strings.TrimSuffix(e.Name(), ".txt"), func(t *testing.T) {
			switch {
			case kind == "write" && cfg.Write == "":
				t.Skip("the tree has no directory to write in")
			case kind == "read" && len(file.path) == 0:
				t.Skip("the tree has no file to read")
			}
			text, err := talk.ReadFile("talk/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			conn := pipe(t, fs)
			conn.SetDeadline(time.Now().Add(time.Minute))
			replay(t, conn, e.Name(), vars.Replace(string(text)))
		})
	}
}

// elements returns the names in a path.
func elements(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// quoted returns names as the text form of messages has them.
func quoted(names []string) string {
	s := fmt.Sprintf("%q", names)
	return s[1 : len(s)-1]
}

// qids matches as many qids as there are names.
func qids(names []string) string { return strings.TrimSpace(strings.Repeat("* ", len(names))) }

// pipe serves fs until the test ends, at the other end of what it returns.
func pipe(t testing.TB, fs ninep.FS) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- ninep.NewServer(fs, ninep.Config{}).ServeConn(t.Context(), far) }()
	t.Cleanup(func() {
		near.Close()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return near
}
