package console

import (
	"io"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestMetrics asks for the metrics of a host with an open file system and a
// closed one.
func TestMetrics(t *testing.T) {
	h, s := newMain(t, Config{})
	exec(t, s, "fsys other config /nowhere")
	exec(t, s, "create /active/f adm adm 666")
	exec(t, s, "sync")
	c, err := connect(t, serveAt(t, h, ServiceConfig{Addr: "unix!" + filepath.Join(t.TempDir(), "s")}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), "glenda", ""); err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		b, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(b)
	}
	if code, text := get("/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("/healthz: %d %q", code, text)
	}
	code, text := get("/metrics")
	if code != 200 {
		t.Fatalf("/metrics: %d\n%s", code, text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
		t.Errorf("Prometheus cannot read it: %v", err)
	}
	for _, want := range []string{
		`fossil_open{fsys="main"} 1`, `fossil_open{fsys="other"} 0`, `fossil_up{fsys="main"} 1`,
		`fossil_epoch{fsys="main",which="high"} 1`, `fossil_block_size_bytes{fsys="main"} 4096`,
		`fossil_connections 1`, `fossil_commands_total 5`, `fossil_archive_waiting{fsys="main"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	exec(t, s, "halt")
	if _, text := get("/metrics"); !strings.Contains(text, `fossil_halted{fsys="main"} 1`) {
		t.Error("a halt is not seen")
	}
}
