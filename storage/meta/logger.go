package meta

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// badgerLog turns Badger's log lines into slog records, and remembers the one
// that says a table was left out: Badger opens without it and calls that success.
type badgerLog struct {
	log  *slog.Logger
	lost atomic.Pointer[string]
}

func (l *badgerLog) Errorf(format string, args ...any) {
	line := trimmed(format, args)
	if strings.Contains(line, "Ignoring table") {
		l.lost.CompareAndSwap(nil, &line)
	}
	l.log.Error("badger: " + line)
}

func (l *badgerLog) Warningf(format string, args ...any) {
	l.log.Warn("badger: " + trimmed(format, args))
}

// Infof goes to debug: what Badger finds worth telling is not what an operator does.
func (l *badgerLog) Infof(format string, args ...any)  { l.debug(format, args) }
func (l *badgerLog) Debugf(format string, args ...any) { l.debug(format, args) }

func (l *badgerLog) debug(format string, args []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("badger: " + trimmed(format, args))
	}
}

func (l *badgerLog) lostTable() error {
	if line := l.lost.Load(); line != nil {
		return object.Errorf(object.KindCorrupt,
			"metadata database: %s; restore this node's metadata from a replica or a backup", *line)
	}
	return nil
}

func trimmed(format string, args []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, args...))
}
