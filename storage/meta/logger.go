package meta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// markAgain is the time between two attempts to write the damage down.
const markAgain = time.Second

// badgerLog turns Badger's log lines into slog records, and finds two things in
// them that Badger takes for success: a table left out when it opened, and a
// compaction that is about to lose keys. From then on the database is damaged.
type badgerLog struct {
	log   *slog.Logger
	books compactions
	lost  atomic.Pointer[string]
	mark  func(text string) error // leaves word for the next Open; nil: none

	once  sync.Once
	stuck chan struct{} // closed when a compaction is held without an end: mark failed, or it cannot be checked

	unopened chan error // why Open failed, when a compaction is held for ever for that
}

func newBadgerLog(log *slog.Logger) *badgerLog {
	return &badgerLog{log: log, stuck: make(chan struct{}), unopened: make(chan error, 1)}
}

func (l *badgerLog) Errorf(format string, args ...any) {
	line := trimmed(format, args)
	if strings.Contains(line, "Ignoring table") {
		l.lost.CompareAndSwap(nil, &line)
	}
	l.log.Error("badger: " + line)
	l.books.line(format, args)
}

func (l *badgerLog) Warningf(format string, args ...any) {
	l.books.line(format, args)
	l.log.Warn("badger: " + trimmed(format, args))
}

// Infof goes to debug: what Badger finds worth telling is not what an operator does.
func (l *badgerLog) Infof(format string, args ...any)  { l.debug(format, args) }
func (l *badgerLog) Debugf(format string, args ...any) { l.debug(format, args) }

func (l *badgerLog) debug(format string, args []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("badger: " + trimmed(format, args))
	}
	if format == lineStats {
		if err := l.books.hold(l.compactionLost, l.compactionStuck, l.compactionUnread); err != nil {
			select {
			case l.unopened <- err:
			default:
			}
			select {} // else Badger would install it
		}
		return
	}
	l.books.line(format, args)
}

// compactionLost refuses everything from now on, and returns when the next Open
// will, too: the compaction goes on then, and the tables that show the loss go.
func (l *badgerLog) compactionLost(what string) {
	if !l.lost.CompareAndSwap(nil, &what) {
		what = *l.lost.Load()
	}
	l.log.Error("metadata: " + what)
	if l.mark == nil {
		return
	}
	for err := l.mark(what + "\n"); err != nil; err = l.mark(what + "\n") {
		l.log.Error("metadata: the damage cannot be written down; a compaction waits for it, make room or repair the disk", "err", err)
		l.giveUp()
		time.Sleep(markAgain)
	}
}

// compactionStuck ends the waits for a compaction that cannot be checked. Nothing is lost.
func (l *badgerLog) compactionStuck() {
	l.log.Error("metadata: a compaction is held, since it cannot be checked: look at the directory and the limit of open files, and restart")
	l.giveUp()
}

// compactionUnread tells of a compaction that waits until the directory can be read.
func (l *badgerLog) compactionUnread(why error) {
	l.log.Error("metadata: a compaction is held until the database's directory can be read, and commits will wait for it: raise the limit of open files (ulimit -n), or look at the directory and its disk", "err", why)
}

func (l *badgerLog) giveUp() { l.once.Do(func() { close(l.stuck) }) }

// held is the error of who waited for a compaction that is held without an end; never nil.
func (l *badgerLog) held() error {
	return errors.Join(l.damage(), object.Errorf(object.KindUnavailable,
		"a compaction of the metadata database is held: see the log, and restart the process"))
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
