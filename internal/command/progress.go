package command

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"
)

// StartBar shows how far a long piece of work is if w is a terminal, and
// nothing otherwise. tell takes the bytes done; stop takes the bar away.
// A total of -1 is not known.
func StartBar(w io.Writer, what string, total int64) (tell func(done int64), stop func()) {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) || total == 0 {
		return nil, func() {}
	}
	bar := progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish(),
	)
	// What the bar cannot write is not worth a failed import.
	return func(done int64) { _ = bar.Set64(done) }, func() { _ = bar.Clear() }
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
