package main

import (
	"runtime/debug"
	"testing"

	"github.com/skshohagmiah/bucketdb"
)

// A node bounds its heap, unless the user did.
func TestMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for _, c := range []struct {
		env         map[string]string
		chunk, want int64
	}{
		{map[string]string{"GOMEMLIMIT": "off"}, 4 << 20, before},
		{nil, 4 << 20, 384 << 20},
		{nil, 64 << 20, 416 << 20},
	} {
		limitMemory(func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }, &bucketdb.Config{ChunkSize: c.chunk})
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("%v with chunks of %d: %d bytes, want %d", c.env, c.chunk, got, c.want)
		}
	}
}
