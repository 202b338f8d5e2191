package fs

import (
	"context"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// WriteMemory tells the bytes of unflushed writes now, and the most there were.
func WriteMemory(s *Server) (used, peak int64) { return s.fs.wmem.stats() }

// Hidden tells how many entries no path could name.
func Hidden(s *Server) int64 { return s.fs.hidden.Load() }

// Writers tells how many handles are open that may write.
func Writers(s *Server) (n int) {
	for _, fl := range s.fs.nodes.files() {
		fl.mu.Lock()
		n += fl.writers
		fl.mu.Unlock()
	}
	return n
}

// MapsDirect tells whether the kernel maps files that are open past its pages.
func MapsDirect(s *Server) bool { return s.fs.mapsDirect }

// Settling tells how many files a change waits in for appends to be sent.
func Settling(s *Server) (n int) {
	for _, fl := range s.fs.nodes.files() {
		fl.mu.Lock()
		if fl.settling != nil {
			n++
		}
		fl.mu.Unlock()
	}
	return n
}

// Flush sends what the file has, as a stat does: whatever comes of it is told nobody.
func Flush(s *Server, ino object.InodeID) {
	_ = s.fs.flush(context.Background(), s.fs.nodes.file(ino))
}
