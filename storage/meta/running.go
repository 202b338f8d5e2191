package meta

import (
	"runtime"
	"strings"
)

// Parts of the names of functions on the stacks of Badger's compactors.
const (
	compacts = "badger/v4.(*levelsController).doCompact"
	builds   = "badger/v4.(*levelsController).compactBuildTables"
	reads    = "badger/v4.(*levelsController).subcompact"
	awaits   = "badger/v4/y.(*Throttle).Finish" // the compactor, for all its parts
	collects = "runtime.chanrecv"               // what gathers the new tables
	holds    = "meta.(*compactions).hold"
)

// compactorsRun reports whether a compactor of this process is at work, rather than
// held or waiting for the held: then all has been read that will be. Badger
// does not tell into how many parts it cut a compaction; the stacks do.
func compactorsRun() bool {
	seen := false
	for _, stack := range goroutines() {
		var at struct{ works, reads, held, waits bool }
		frames := runtime.CallersFrames(stack.Stack())
		for more := true; more; {
			var frame runtime.Frame
			frame, more = frames.Next()
			name := frame.Function
			at.reads = at.reads || strings.Contains(name, reads)
			at.works = at.works || strings.Contains(name, compacts) || strings.Contains(name, builds) || strings.Contains(name, reads)
			at.held = at.held || strings.Contains(name, holds)
			at.waits = at.waits || strings.HasSuffix(name, awaits) || strings.HasPrefix(name, collects)
		}
		if at.works && !at.held && !at.waits {
			return true
		}
		seen = seen || at.reads && at.held
	}
	return !seen // the names have changed, or it was let go
}

func goroutines() []runtime.StackRecord {
	for n := runtime.NumGoroutine() + 64; ; n *= 2 {
		stacks := make([]runtime.StackRecord, n)
		if n, ok := runtime.GoroutineProfile(stacks); ok {
			return stacks[:n]
		}
	}
}
