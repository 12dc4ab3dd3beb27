package logs

import (
	"log/slog"
	"log/syslog"
)

// A syslogWriter is a connection to the local syslog. The package dials again
// when the daemon at the other end was restarted.
type syslogWriter struct{ *syslog.Writer }

// openSyslog connects to the machine's syslog, or to the one at an address.
func openSyslog(network, addr, name string) (*syslogWriter, error) {
	w, err := syslog.Dial(network, addr, syslog.LOG_DAEMON|syslog.LOG_INFO, name)
	if err != nil {
		return nil, err
	}
	return &syslogWriter{w}, nil
}

// write sends a record with the priority that its level has there. What the
// syslog cannot take is dropped: the other handlers have it.
func (s *syslogWriter) write(e Entry) {
	switch {
	case e.Level >= slog.LevelError:
		s.Err(e.Text)
	case e.Level >= slog.LevelWarn:
		s.Warning(e.Text)
	case e.Level >= slog.LevelInfo:
		s.Info(e.Text)
	default:
		s.Debug(e.Text)
	}
}
