package meta

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// badgerLog turns Badger's log lines into slog records, and finds two things in
// them that Badger takes for success: a table left out when it opened, and a
// compaction that lost keys. From then on the database is damaged.
type badgerLog struct {
	log   *slog.Logger
	books compactions
	lost  atomic.Pointer[string]
	mark  func(text string) error // leaves word for the next Open; nil: none
}

func (l *badgerLog) Errorf(format string, args ...any) {
	line := trimmed(format, args)
	if strings.Contains(line, "Ignoring table") {
		l.lost.CompareAndSwap(nil, &line)
	}
	l.log.Error("badger: " + line)
}

func (l *badgerLog) Warningf(format string, args ...any) {
	l.books.line(format, args)
	l.log.Warn("badger: " + trimmed(format, args))
}

// Infof goes to debug: what Badger finds worth telling is not what an operator does.
func (l *badgerLog) Infof(format string, args ...any)  { l.debug(format, args) }
func (l *badgerLog) Debugf(format string, args ...any) { l.debug(format, args) }

func (l *badgerLog) debug(format string, args []any) {
	if lost := l.books.line(format, args); lost > 0 {
		l.compactionLost(lost)
	}
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("badger: " + trimmed(format, args))
	}
}

// compactionLost makes the loss known at once and for ever: the tables that
// could show it are gone.
func (l *badgerLog) compactionLost(keys uint64) {
	line := fmt.Sprintf("a compaction met an unreadable block and lost %d keys", keys)
	if !l.lost.CompareAndSwap(nil, &line) {
		return
	}
	l.log.Error("metadata: " + line)
	if l.mark == nil {
		return
	}
	if err := l.mark(line + "\n"); err != nil {
		l.log.Error("metadata: the damage could not be written down; do not restart this node as it is", "err", err)
	}
}

// damage is KindCorrupt once something was lost.
func (l *badgerLog) damage() error {
	if line := l.lost.Load(); line != nil {
		return damaged(*line)
	}
	return nil
}

func damaged(line string) error {
	return object.Errorf(object.KindCorrupt,
		"metadata database: %s; restore this node's metadata from a replica or a backup", line)
}

func trimmed(format string, args []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, args...))
}
