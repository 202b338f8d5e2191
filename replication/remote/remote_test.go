package remote

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func store(t *testing.T) *meta.Partition {
	t.Helper()
	db, err := meta.Open(meta.Options{Dir: t.TempDir(), MemTableBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db.Partition(3)
}

func serve(t *testing.T, p *meta.Partition) *Server {
	t.Helper()
	s := NewServer(func(_ context.Context, id object.PartitionID) (Snapshot, error) {
		if id != p.ID() {
			return nil, object.Errorf(object.KindUnavailable, "no replica of partition %d here", id)
		}
		return p.View(), nil
	})
	t.Cleanup(s.Close)
	return s
}

func set(t *testing.T, p *meta.Partition, pairs map[string]string) {
	t.Helper()
	tx := p.Begin()
	defer tx.Discard()
	for k, v := range pairs {
		if err := tx.Set([]byte(k), []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(p.Applied() + 1); err != nil {
		t.Fatal(err)
	}
}

type scanner func(start, end []byte, fn func(key, value []byte) (bool, error)) error

func collect(scan scanner, start, end []byte, stop int) (out []string, err error) {
	err = scan(start, end, func(k, v []byte) (bool, error) {
		out = append(out, string(k)+"="+string(v[:min(len(v), 8)]))
		return len(out) != stop, nil
	})
	return out, err
}

// TestSameAsLocal compares a remote reader with a local one, over random keys,
// ranges, directions and early stops.
func TestSameAsLocal(t *testing.T) {
	p := store(t)
	pairs := map[string]string{"": "empty key", "long": string(bytes.Repeat([]byte("x"), 150_000)), "long2": string(bytes.Repeat([]byte("y"), 150_000)), "none": ""}
	for i := range 3000 {
		pairs[fmt.Sprintf("k%05d", i*7)] = fmt.Sprint(i)
	}
	set(t, p, pairs)
	s := serve(t, p)
	local := p.View()
	defer local.Close()
	rapid.Check(t, func(rt *rapid.T) {
		r := Open(t.Context(), s.Handle, 3)
		defer r.Close()
		key := rapid.Custom(func(rt *rapid.T) []byte {
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0:
				return nil
			case 1:
				return []byte(rapid.SampledFrom([]string{"", "a", "long", "none", "z"}).Draw(rt, "name"))
			}
			return fmt.Appendf(nil, "k%05d", rapid.IntRange(0, 22_000).Draw(rt, "n"))
		})
		start, end, stop := key.Draw(rt, "start"), key.Draw(rt, "end"), rapid.SampledFrom([]int{0, 1, 16, 17, 100}).Draw(rt, "stop")
		for _, scans := range [][2]scanner{{local.Ascend, r.Ascend}, {local.Descend, r.Descend}} {
			want, err1 := collect(scans[0], start, end, stop)
			got, err2 := collect(scans[1], start, end, stop)
			if err1 != nil || err2 != nil || fmt.Sprint(want) != fmt.Sprint(got) {
				rt.Fatalf("[%q, %q): %d entries (%v), remote %d (%v)", start, end, len(want), err1, len(got), err2)
			}
		}
		want, found1, _ := local.Get(start)
		got, found2, err := r.Get(start)
		if err != nil || found1 != found2 || !bytes.Equal(want, got) || (want == nil) != (got == nil) {
			rt.Fatalf("get %q: %v %v, remote %v %v %v", start, want, found1, got, found2, err)
		}
	})
	if n := len(s.views); n != 0 {
		t.Errorf("%d views are still open", n)
	}
}

// TestOneMoment: what changes after the first read is not seen.
func TestOneMoment(t *testing.T) {
	p := store(t)
	set(t, p, map[string]string{"a": "1", "b": "1"})
	s := serve(t, p)
	r := Open(t.Context(), s.Handle, 3)
	defer r.Close()
	if v, _, err := r.Get([]byte("a")); string(v) != "1" || err != nil {
		t.Fatal(v, err)
	}
	set(t, p, map[string]string{"a": "2", "b": "2", "c": "2"})
	if got, err := collect(r.Ascend, nil, nil, 0); fmt.Sprint(got) != "[a=1 b=1]" || err != nil {
		t.Fatal(got, err)
	}
}

func TestEnds(t *testing.T) {
	p := store(t)
	set(t, p, map[string]string{"a": "1"})
	s := serve(t, p)
	unavailable := func(what string, err error) {
		t.Helper()
		if !object.IsKind(err, object.KindUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	idle := Open(t.Context(), s.Handle, 3)
	if _, _, err := idle.Get([]byte("a")); err != nil {
		t.Fatal(err)
	}
	s.expire(time.Now().Add(time.Second))
	_, _, err := idle.Get([]byte("a"))
	unavailable("a view that rested too long", err)
	_, _, err = Open(t.Context(), s.Handle, 4).Get([]byte("a"))
	unavailable("a partition that is not here", err)
	if _, err := s.Handle(t.Context(), []byte("\xff\x00")); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("rubbish: %v", err)
	}
	s.Close()
	if _, _, err := Open(t.Context(), s.Handle, 3).Get([]byte("a")); err == nil {
		t.Error("a closed server answered")
	}
}

// TestManyAtOnce reads, ends and expires views at the same time.
func TestManyAtOnce(t *testing.T) {
	p := store(t)
	set(t, p, map[string]string{"a": "1", "b": "2"})
	s := serve(t, p)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				r := Open(t.Context(), s.Handle, 3)
				got, err := collect(r.Descend, nil, nil, 0)
				if err == nil && fmt.Sprint(got) != "[b=2 a=1]" {
					t.Errorf("%v", got)
				}
				if err != nil && !object.IsKind(err, object.KindUnavailable) {
					t.Error(err)
				}
				if err := r.Close(); err != nil && !object.IsKind(err, object.KindUnavailable) {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		s.expire(time.Now())
	}
	wg.Wait()
}

func FuzzHandle(f *testing.F) {
	good, err := encode(request{Partition: 3, Op: opScan, Key: []byte("a"), Open: true, Limit: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0xa1, 3, 2})
	db, err := meta.Open(meta.Options{InMemory: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	s := NewServer(func(_ context.Context, id object.PartitionID) (Snapshot, error) {
		if id >= object.MaxPartitions {
			return nil, object.Errorf(object.KindStale, "there is no partition %d", id)
		}
		return db.Partition(id).View(), nil
	})
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := s.Handle(t.Context(), data); err != nil && object.KindOf(err) == object.KindInternal {
			t.Error(err)
		}
		s.expire(time.Now().Add(time.Second))
	})
}
