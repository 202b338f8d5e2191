// Package integration holds the tests of the whole: real processes, real mounts,
// real tools, and kill -9. Sizes are those of CI; BUCKETDB_FULL=1 asks for the
// full ones.
package integration
