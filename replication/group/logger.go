package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLog turns raft's log lines into slog records. raft finds every election
// worth an Info; to an operator of many groups it is detail, so levels sink by
// one. The embedded logger answers the methods that raft does not use.
type raftLog struct {
	hclog.Logger
	log *slog.Logger
}

func newRaftLog(log *slog.Logger) hclog.Logger {
	return &raftLog{Logger: hclog.NewNullLogger(), log: log}
}

func (l *raftLog) at(level slog.Level, msg string, args []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if format, ok := f[0].(string); ok {
				args[i] = fmt.Sprintf(format, f[1:]...)
			}
		}
	}
	l.log.Log(context.Background(), level, "raft: "+msg, args...)
}

// Error is hclog.Logger's. What fails because raft is being stopped is no error, and what
// fails towards a peer is detail: the transport says once that a node cannot be
// reached, where each of many groups would say it again and again.
func (l *raftLog) Error(msg string, args ...any) {
	level := slog.LevelError
	for _, a := range args {
		if err, ok := a.(error); ok && errors.Is(err, errEnding) || a == "peer" || a == "target" {
			level = slog.LevelDebug
		}
	}
	l.at(level, msg, args)
}

// Log is hclog.Logger's.
func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		l.Error(msg, args...)
	case hclog.Warn:
		l.Warn(msg, args...)
	default:
		l.Debug(msg, args...)
	}
}

// Trace, Debug, Info and Warn are hclog.Logger's.
func (l *raftLog) Trace(string, ...any)           {}
func (l *raftLog) Debug(msg string, args ...any)  { l.at(slog.LevelDebug, msg, args) }
func (l *raftLog) Info(msg string, args ...any)   { l.at(slog.LevelDebug, msg, args) }
func (l *raftLog) Warn(msg string, args ...any)   { l.at(slog.LevelInfo, msg, args) }
func (l *raftLog) With(args ...any) hclog.Logger  { return newRaftLog(l.log.With(args...)) }
func (l *raftLog) Named(string) hclog.Logger      { return l }
func (l *raftLog) ResetNamed(string) hclog.Logger { return l }
