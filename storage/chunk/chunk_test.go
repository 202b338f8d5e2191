package chunk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

func TestRoundTrip(t *testing.T) {
	contents := map[string]func(int, int64) []byte{"noise": noise, "text": text, "mixed": mixed}
	for _, kind := range []Compression{None, S2, Zstd} {
		s := openStore(t, Options{FS: vfs.OS(), Dirs: []string{t.TempDir()}, Compression: kind})
		n := 0
		for what, make := range contents {
			for _, size := range []int{1, 15, 100, FrameSize - 1, FrameSize, FrameSize + 1, 3*FrameSize + 7, 20 * FrameSize} {
				data := make(size, int64(n))
				n++
				ref, err := s.Put(ctx, id(n), data)
				must(t, err)
				if ref.SHA256 != sha256.Sum256(data) || ref.Length != int64(size) || ref.Stored > ref.Length {
					t.Fatalf("ref %+v", ref)
				}
				wantChunk(t, s, id(n), data)
				must(t, s.Verify(ctx, id(n)))
				info, err := s.Stat(ctx, id(n))
				must(t, err)
				if info.Ref != ref {
					t.Fatalf("stat %+v, put %+v", info, ref)
				}
				compressed := kind != None && what != "noise" && size > 1000
				if (info.Compression == kind) != (compressed || kind == None) || compressed && ref.Stored >= ref.Length*15/16+1 {
					t.Fatalf("%s of %d bytes with %v: %+v", what, size, kind, info)
				}
			}
		}
	}
}

func TestReadAtAnyRange(t *testing.T) {
	for _, kind := range []Compression{None, S2, Zstd} {
		s := openStore(t, Options{Compression: kind, OpenFiles: 1})
		data := mixed(5*FrameSize+1234, 1)
		ref, err := s.Put(ctx, id(0), data)
		must(t, err)
		rapid.Check(t, func(rt *rapid.T) {
			off := rapid.IntRange(0, len(data)+10).Draw(rt, "off")
			n := rapid.IntRange(0, len(data)+10).Draw(rt, "n")
			dst := make([]byte, n)
			got, err := s.ReadAt(ctx, id(0), ref.SHA256, int64(off), dst)
			want := data[min(off, len(data)):min(off+n, len(data))]
			if !bytes.Equal(dst[:got], want) {
				rt.Fatalf("%d bytes at %d: other bytes (%d of them)", n, off, got)
			}
			if (err == io.EOF) != (got < n) || err != nil && err != io.EOF {
				rt.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	s := openStore(t, Options{})
	_, err := s.Put(ctx, id(0), nil)
	wantKind(t, err, object.KindInvalid)
	_, err = s.Put(ctx, id(0), make([]byte, MaxLength+1))
	wantKind(t, err, object.KindTooLarge)
	_, err = s.ReadAt(ctx, id(0), [32]byte{}, -1, nil)
	wantKind(t, err, object.KindInvalid)
	_, err = s.ReadAll(ctx, id(0), [32]byte{})
	wantKind(t, err, object.KindNotFound)
	wantKind(t, s.Verify(ctx, id(0)), object.KindNotFound)
	_, err = s.Stat(ctx, id(0))
	wantKind(t, err, object.KindNotFound)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Put(gone, id(0), []byte("x"))
	wantKind(t, err, object.KindCanceled)
	_, err = s.Stat(gone, id(0))
	wantKind(t, err, object.KindCanceled)

	for _, o := range []Options{{}, {FS: vfs.OS(), Logger: quiet()},
		{FS: vfs.NewPowerCut(), Logger: quiet(), Dirs: []string{"/a", "/a/"}},
		{FS: vfs.NewPowerCut(), Logger: quiet(), Dirs: []string{"/a"}, Compression: 9}} {
		_, err := Open(o)
		wantKind(t, err, object.KindInvalid)
	}
	for name, want := range map[string]Compression{"": None, "none": None, "snappy": S2, "S2": S2, "zstd": Zstd} {
		got, err := ParseCompression(name)
		must(t, err)
		if got != want {
			t.Fatalf("%q is %v", name, got)
		}
	}
	_, err = ParseCompression("lz77")
	wantKind(t, err, object.KindInvalid)
}

func TestLargestChunk(t *testing.T) {
	s := openStore(t, Options{FS: vfs.OS(), Dirs: []string{t.TempDir()}, Compression: S2})
	data := bytes.Repeat(text(FrameSize, 1), MaxLength/FrameSize)
	_, err := s.Put(ctx, id(0), data)
	must(t, err)
	wantChunk(t, s, id(0), data)
}

func TestPutAgain(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(100000, 1)
	first, err := s.Put(ctx, id(0), data)
	must(t, err)
	again, err := s.PutHash(ctx, id(0), data, sha256.Sum256(data))
	must(t, err)
	if first != again {
		t.Fatalf("%+v then %+v", first, again)
	}
	_, err = s.Put(ctx, id(0), noise(100000, 2))
	wantKind(t, err, object.KindConflict)
	wantChunk(t, s, id(0), data)
	if st := s.Stats(); st.Puts != 1 || st.PutBytes != 100000 {
		t.Fatalf("stats %+v", st)
	}

	flipBit(t, s, id(0), 50000, 3) // a damaged copy is replaced, and kept for a look
	_, err = s.Put(ctx, id(0), data)
	must(t, err)
	wantChunk(t, s, id(0), data)
	if q := entries(t, s, "quarantine"); len(q) != 1 || s.Stats().Corrupt != 1 {
		t.Fatalf("quarantine %v", q)
	}
}

func TestDelete(t *testing.T) {
	s := openStore(t, Options{})
	for n := range 8 {
		_, err := s.Put(ctx, id(n), noise(1000, int64(n)))
		must(t, err)
		wantChunk(t, s, id(n), noise(1000, int64(n))) // and into the cache of open files
	}
	must(t, s.Delete(ctx, id(0)))
	must(t, s.Delete(ctx, id(0)))
	must(t, s.Delete(ctx, id(77)))
	_, err := s.ReadAll(ctx, id(0), [32]byte{})
	wantKind(t, err, object.KindNotFound)
	before := s.Stats().DirSyncs
	must(t, s.DeleteAll(ctx, []object.ChunkID{id(4), id(5), id(6), id(7)}))
	if st := s.Stats(); st.DirSyncs != before+1 || st.Deletes != 5 || st.OpenFiles != 3 {
		t.Fatalf("stats %+v, %d syncs before", st, before)
	}
	wantChunk(t, s, id(1), noise(1000, 1))
}

func TestListing(t *testing.T) {
	s := openStore(t, Options{Dirs: []string{"/a", "/b"}})
	byPartition := map[object.PartitionID][]object.ChunkID{}
	for n := range 200 {
		_, err := s.Put(ctx, id(n), []byte{byte(n)})
		must(t, err)
		byPartition[id(n).Owner] = append(byPartition[id(n).Owner], id(n))
	}
	must(t, s.opts.FS.MkdirAll("mk", "/a/chunks/lost+found", 0o700))
	partitions, err := s.Partitions()
	must(t, err)
	if !slices.Equal(partitions, []object.PartitionID{1, 2, 3}) {
		t.Fatalf("partitions %v", partitions)
	}
	for p, want := range byPartition {
		slices.SortFunc(want, object.ChunkID.Compare)
		if got := collect(t, s, p, object.ChunkID{}); !slices.Equal(got, want) {
			t.Fatalf("partition %d: %d ids, want %d", p, len(got), len(want))
		}
		if got := collect(t, s, p, want[9]); !slices.Equal(got, want[10:]) {
			t.Fatalf("partition %d after the tenth: %d ids", p, len(got))
		}
		if got := collect(t, s, p, object.ChunkID{Owner: p + 1}); got != nil {
			t.Fatalf("partition %d after the next: %d ids", p, len(got))
		}
	}
	gone := byPartition[1][3]
	must(t, s.Delete(ctx, gone))
	for _, c := range append(byPartition[1], byPartition[2]...) {
		if there, err := s.Has(c); err != nil || there == (c == gone) {
			t.Fatalf("chunk %s: %v, %v", c, there, err)
		}
	}
	stop := fmt.Errorf("stop")
	if err := s.Each(ctx, 1, object.ChunkID{}, func(object.ChunkID) error { return stop }); err != stop {
		t.Fatalf("error %v", err)
	}
	if got := collect(t, s, 99, object.ChunkID{}); got != nil {
		t.Fatal("ids of a partition that is not here")
	}
}

func collect(t *testing.T, s *Store, p object.PartitionID, after object.ChunkID) (ids []object.ChunkID) {
	t.Helper()
	must(t, s.Each(ctx, p, after, func(id object.ChunkID) error {
		ids = append(ids, id)
		return nil
	}))
	return ids
}

func TestConcurrent(t *testing.T) {
	s := openStore(t, Options{FS: vfs.OS(), Dirs: []string{t.TempDir(), t.TempDir()}, Compression: S2, OpenFiles: 4})
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for n := range 12 {
				n := n + 12*(w/4) // four workers put the same ids
				data := mixed(FrameSize+1000*n, int64(n))
				if _, err := s.Put(ctx, id(n), data); err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, 2000)
				if _, err := s.ReadAt(ctx, id(n), sha256.Sum256(data), FrameSize-1000, got); err != nil && err != io.EOF {
					t.Error(err)
				} else if !bytes.HasPrefix(data[FrameSize-1000:], got[:min(2000, len(data)-FrameSize+1000)]) {
					t.Error("other bytes")
				}
			}
		})
	}
	wg.Wait()
	for w := range 8 { // deletes against reads: whole, or not there
		wg.Go(func() {
			for n := range 48 {
				if w%2 == 0 {
					if err := s.Delete(ctx, id(n)); err != nil {
						t.Error(err)
					}
				} else if _, err := s.ReadAll(ctx, id(n), [32]byte{}); err != nil && !object.IsKind(err, object.KindNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Corrupt != 0 || st.Puts != 48 || st.Deletes != 48 || len(entries(t, s, "tmp")) != 0 {
		t.Fatalf("stats %+v", st)
	}
	if open := s.files.len(); open > 4 {
		t.Fatalf("%d open files", open)
	}
}

func TestDirectorySyncsAreShared(t *testing.T) {
	faulty := vfs.NewFaulty(vfs.NewPowerCut())
	s := openStore(t, Options{FS: faulty})
	upload := id(0)
	_, err := s.Put(ctx, upload, []byte("first"))
	must(t, err)
	before := s.Stats()

	release := make(chan struct{})
	faulty.Set(OpDirSync, vfs.Rule{Block: release})
	const writers = 20
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			c := upload
			c.Ordinal = uint32(100 + n)
			if _, err := s.Put(ctx, c, []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, func() bool { return s.Stats().DirSyncRequests == before.DirSyncRequests+writers })
	close(release)
	wg.Wait()
	if made := s.Stats().DirSyncs - before.DirSyncs; made > 2 {
		t.Fatalf("%d syncs for %d writers", made, writers)
	}
}
