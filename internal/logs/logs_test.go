package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T, f Flags) (*slog.Logger, *Recent, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	log, recent, err := f.Open(&out, "venti")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { recent.Close() })
	return log, recent, &out
}

func TestFormats(t *testing.T) {
	log, recent, out := open(t, Flags{})
	log.With("partition", "/a b").WithGroup("g").Info("arena is full", "clumps", 3, "level", "x")
	log.Debug("not written")
	const text = `msg="arena is full" partition="/a b" g.clumps=3 g.level=x`
	if want := regexp.MustCompile(`^time=\S+ level=INFO ` + regexp.QuoteMeta(text) + "\n$"); !want.MatchString(out.String()) {
		t.Errorf("text is %q", out)
	}
	list := recent.Entries()
	if len(list) != 1 || list[0].Text != text || list[0].Level != slog.LevelInfo || list[0].Time.IsZero() {
		t.Errorf("entries are %+v", list)
	}

	log, _, out = open(t, Flags{Format: "json", Level: slog.LevelDebug})
	log.Debug("connected", "client", "x")
	var rec map[string]any
	if err := json.Unmarshal(out.Bytes(), &rec); err != nil || rec["msg"] != "connected" || rec["client"] != "x" || rec["level"] != "DEBUG" {
		t.Errorf("JSON is %s: %v", out, err)
	}

	if _, _, err := (Flags{Format: "xml"}).Open(out, "venti"); err == nil || !strings.Contains(err.Error(), "xml") {
		t.Errorf("unknown format: %v", err)
	}
}

func TestRecent(t *testing.T) {
	log, recent, _ := open(t, Flags{})
	for i := range keep + 10 {
		log.Info("m", "i", i)
	}
	list := recent.Entries()
	if len(list) != keep || list[0].Text != "msg=m i=10" || list[keep-1].Text != fmt.Sprintf("msg=m i=%d", keep+9) {
		t.Errorf("%d entries from %q to %q", len(list), list[0].Text, list[len(list)-1].Text)
	}
	if recent.Total() != keep+10 {
		t.Errorf("%d in all", recent.Total())
	}
	recent.SetLevel(slog.LevelWarn)
	log.Info("dropped")
	log.Warn("kept")
	if recent.Level() != slog.LevelWarn || recent.Total() != keep+11 {
		t.Errorf("level %v, %d in all", recent.Level(), recent.Total())
	}

	var none *Recent
	none.SetLevel(slog.LevelWarn)
	if none.Entries() != nil || none.Total() != 0 || none.Level() != slog.LevelInfo {
		t.Error("no log has entries")
	}
}

func TestManyAtOnce(t *testing.T) {
	log, recent, _ := open(t, Flags{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				log.With("i", i).Info("m", "text", strings.Repeat("x", 100))
			}
		})
	}
	wg.Wait()
	for _, e := range recent.Entries() {
		if !strings.HasPrefix(e.Text, "msg=m i=") || len(e.Text) != len("msg=m i=0 text=")+100 {
			t.Fatalf("torn entry %q", e.Text)
		}
	}
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	pc, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	w, err := openSyslog("unixgram", path, "venti")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	log := slog.New(newLines(slog.LevelDebug, w.write))
	buf := make([]byte, 1000)
	for _, tc := range []struct {
		level    slog.Level
		priority int
	}{{slog.LevelDebug, 7}, {slog.LevelInfo, 6}, {slog.LevelWarn, 4}, {slog.LevelError, 3}} {
		log.Log(t.Context(), tc.level, "arena is full", "arena", "a0")
		n, _, err := pc.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		const daemon = 3 << 3
		got := string(buf[:n])
		if !strings.HasPrefix(got, fmt.Sprintf("<%d>", daemon|tc.priority)) || !strings.Contains(got, "venti[") ||
			!strings.HasSuffix(got, "]: msg=\"arena is full\" arena=a0\n") {
			t.Errorf("%v arrives as %q", tc.level, got)
		}
	}
}

// TestNoSyslog opens a logger for the machine's syslog, whether there is one
// or not.
func TestNoSyslog(t *testing.T) {
	log, recent, out := open(t, Flags{Syslog: true})
	log.Info("here")
	if !strings.Contains(out.String(), "msg=here") || recent.syslog == nil && !strings.Contains(out.String(), "msg=syslog") {
		t.Errorf("written: %s", out)
	}
}
