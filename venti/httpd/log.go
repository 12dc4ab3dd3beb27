package httpd

import (
	"bufio"
	"fmt"
	"log/slog"
	"net/http"

	"strata/internal/logs"
)

// memoryLogs are the logs that /log lists, and the level from which on
// messages are in each.
var memoryLogs = []struct {
	name string
	from slog.Level
}{{"all", slog.LevelDebug}, {"warnings", slog.LevelWarn}}

// timeFormat is how pages write a time.
const timeFormat = "2006/0102 15:04:05"

// logPage is /log: the list of logs or, with log=NAME, one of them.
func (h *Handler) logPage(w http.ResponseWriter, r *http.Request) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	name := r.FormValue("log")
	if name == "" {
		html(w)
		fmt.Fprint(b, "<html><head>\n<title>Venti Server Logs</title>\n</head><body>\n<b>Venti Server Logs</b>\n<p>\n")
		for _, l := range memoryLogs {
			fmt.Fprintf(b, "<a href=\"/log?log=%s\">%s</a><br>\n", l.name, l.name)
		}
		fmt.Fprint(b, "</body></html>\n")
		return
	}
	for _, l := range memoryLogs {
		if l.name != name {
			continue
		}
		html(w)
		fmt.Fprintf(b, "<html><head>\n<title>Venti Server Log: %s</title>\n</head><body>\n<b>Venti Server Log: %s</b>\n<p>\n<pre>\n", name, name)
		for _, e := range h.cfg.Recent.Entries() {
			if e.Level >= l.from {
				fmt.Fprintln(b, escape(logLine(&e)))
			}
		}
		fmt.Fprint(b, "</pre>\n</body></html>\n")
		return
	}
	http.Error(w, "The object /log does not exist on this server.", http.StatusNotFound)
}

func logLine(e *logs.Entry) string {
	return e.Time.Format(timeFormat) + " " + e.Level.String() + " " + e.Text
}
