package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// step is one operation of a scripted or random workload.
type step struct {
	what   string
	group  object.PartitionID
	lo, hi uint64
	term   uint64
	size   int
}

func entryOf(s step, i uint64) *raft.Log {
	e := &raft.Log{Index: i, Term: s.term, Type: raft.LogType(i % 3), Data: bytes.Repeat([]byte{byte(i), byte(s.term)}, s.size/2)}
	if i%4 == 0 {
		e.Extensions = []byte{1, 2, byte(i)}
	}
	if i%2 == 0 {
		e.AppendedAt = time.Unix(int64(i), 5).UTC()
	}
	return e
}

// run does the step on the log.
func (s step) run(l *Log) error {
	g := l.Group(s.group)
	switch s.what {
	case "store":
		var logs []*raft.Log
		for i := s.lo; i <= s.hi; i++ {
			logs = append(logs, entryOf(s, i))
		}
		return g.StoreLogs(logs)
	case "delete":
		return g.DeleteRange(s.lo, s.hi)
	case "term":
		return g.SetUint64([]byte("CurrentTerm"), s.term)
	case "vote":
		return errors.Join(g.SetUint64([]byte(keyLastVoteTerm), s.term), g.Set([]byte(keyLastVoteCand), fmt.Appendf(nil, "node-%d", s.lo)))
	case "snapshot":
		return g.SetSnapshot(s.lo, s.term, bytes.Repeat([]byte{7}, s.size))
	case "restart":
		return g.Restart(s.lo, s.term, bytes.Repeat([]byte{7}, s.size), []byte("CurrentTerm"), binary.BigEndian.AppendUint64(nil, s.term))
	case "wipe":
		return g.Wipe()
	case "clean":
		return l.Clean()
	}
	return l.reclaimOldestForTest()
}

// reclaimOldestForTest reclaims the oldest segment, worthwhile or not.
func (l *Log) reclaimOldestForTest() error {
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	if len(l.order) < 2 {
		return nil
	}
	return l.reclaimOldest()
}

// model is what the log must hold.
type model map[object.PartitionID]groupModel

type groupModel struct {
	entries map[uint64]string
	values  map[string]string
}

func (m model) clone() model {
	c := model{}
	for id, g := range m {
		c[id] = groupModel{maps.Clone(g.entries), maps.Clone(g.values)}
	}
	return c
}

func (m model) apply(s step) model {
	m = m.clone()
	if _, ok := m[s.group]; !ok || s.what == "wipe" {
		m[s.group] = groupModel{map[uint64]string{}, map[string]string{}}
	}
	g := m[s.group]
	switch s.what {
	case "store":
		for i := s.lo; i <= s.hi; i++ {
			g.entries[i] = showEntry(entryOf(s, i))
		}
	case "delete":
		maps.DeleteFunc(g.entries, func(i uint64, _ string) bool { return s.lo <= i && i <= s.hi })
	case "term":
		g.values["term"] = fmt.Sprint(s.term)
	case "vote":
		g.values["vote"] = fmt.Sprintf("%d node-%d", s.term, s.lo)
	case "snapshot":
		g.values["snap"] = fmt.Sprintf("%d %d %d", s.lo, s.term, s.size)
	case "restart":
		clear(g.entries)
		g.values["snap"] = fmt.Sprintf("%d %d %d", s.lo, s.term, s.size)
		g.values["term"] = fmt.Sprint(s.term)
	}
	return m
}

func showEntry(e *raft.Log) string {
	return fmt.Sprintf("%d/%d/%d %x %x %v", e.Index, e.Term, e.Type, e.Data, e.Extensions, e.AppendedAt)
}

// String is the state in the form that dump gives the log's.
func (m model) String() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(m)) {
		g := m[id]
		idx := slices.Sorted(maps.Keys(g.entries))
		if len(idx) == 0 && len(g.values) == 0 {
			continue
		}
		first, last := uint64(0), uint64(0)
		if len(idx) > 0 {
			first, last = idx[0], idx[len(idx)-1]
		}
		fmt.Fprintf(&b, "group %d: %d..%d %v\n", id, first, last, g.values)
		for _, i := range idx {
			fmt.Fprintln(&b, g.entries[i])
		}
	}
	return b.String()
}

// dump reads everything in the log through its public face.
func dump(l *Log) (string, error) {
	m := model{}
	var errs error
	for _, id := range l.Groups() {
		g := l.Group(id)
		gm := groupModel{map[uint64]string{}, map[string]string{}}
		first, _ := g.FirstIndex()
		last, _ := g.LastIndex()
		for i := first; i <= last && last > 0; i++ {
			var e raft.Log
			if err := g.GetLog(i, &e); err == nil {
				gm.entries[i] = showEntry(&e)
			} else if err != raft.ErrLogNotFound {
				errs = errors.Join(errs, err)
			}
		}
		if term, err := g.GetUint64([]byte("CurrentTerm")); err != nil || term > 0 {
			gm.values["term"] = fmt.Sprint(term)
			errs = errors.Join(errs, err)
		}
		if cand, err := g.Get([]byte(keyLastVoteCand)); cand != nil {
			term, err2 := g.GetUint64([]byte(keyLastVoteTerm))
			gm.values["vote"] = fmt.Sprintf("%d %s", term, cand)
			errs = errors.Join(errs, err, err2)
		}
		if index, term, conf := g.Snapshot(); index > 0 {
			gm.values["snap"] = fmt.Sprintf("%d %d %d", index, term, len(conf))
		}
		m[id] = gm
	}
	return m.String(), errs
}

// small are options under which a short workload meets every part of the log.
func small(fsys vfs.FS, dir string) Options {
	return Options{FS: fsys, Dir: dir, SegmentBytes: minSegmentBytes, MaxBatchBytes: 4096, CacheBytes: -1, ManualClean: true}
}

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustDump(t testing.TB, l *Log) string {
	t.Helper()
	s, err := dump(l)
	must(t, err)
	return s
}

func wantKind(t testing.TB, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("got %v, want an error of kind %v", err, k)
	}
}

// checkAccounts compares the live bytes kept with a recount, and returns an
// error where they differ.
func checkAccounts(l *Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	count := map[uint64]int64{}
	add := func(at loc) {
		if at != (loc{}) {
			count[uint64(at.seg)] += int64(at.len)
		}
	}
	for _, g := range l.groups {
		g.entries.each(add)
		for _, v := range g.stable {
			add(v.at)
		}
		add(g.vote.at)
		add(g.snap.at)
	}
	for id, s := range l.segs {
		if s.live != count[id] {
			return fmt.Errorf("segment %d counts %d live bytes, has %d", id, s.live, count[id])
		}
		delete(count, id)
	}
	if len(count) > 0 {
		return fmt.Errorf("live records in segments that are gone: %v", count)
	}
	return nil
}
