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
func compactorsRun() bool { return profileShowsRun() || tracesShowRun() }

// tracesShowRun looks once more, and stops the world for it: the profile has only 32
// frames of each stack, of which a deep logger may need all.
func tracesShowRun() bool {
	seen := false
	for _, g := range traces() {
		head, _, _ := strings.Cut(g, "\n")
		works := strings.Contains(g, compacts) || strings.Contains(g, builds) || strings.Contains(g, reads)
		held := strings.Contains(g, holds)
		waits := strings.Contains(g, awaits+"(") || strings.Contains(head, "[chan receive")
		if works && !held && !waits {
			return true
		}
		seen = seen || strings.Contains(g, reads) && held
	}
	return !seen
}

// traces is the stack of each goroutine as text: the 50 innermost frames and the 50 outermost.
func traces() []string {
	for buf := make([]byte, 1<<20); ; buf = make([]byte, 2*len(buf)) {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return strings.Split(string(buf[:n]), "\n\n")
		}
	}
}

func profileShowsRun() bool {
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
