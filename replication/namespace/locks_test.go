package namespace

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// byteLocks is the plain model of one inode's locks: of each byte of a short file, and of
// all bytes behind it together, who has it and how.
type byteLocks [modelBytes]map[who]bool // exclusive

const modelBytes = 24

type who struct {
	class   object.LockClass
	session byte
	owner   uint64
}

func whoOf(l *object.Lock) who { return who{l.Class, l.Session[0], l.Owner} }

// bytesOf are the model's bytes in a lock's range.
func bytesOf(l *object.Lock) (from, to int) {
	return int(min(l.First, modelBytes-1)), int(min(l.Last, modelBytes-1))
}

func (m *byteLocks) conflicts(l *object.Lock) bool {
	from, to := bytesOf(l)
	for b := from; b <= to; b++ {
		for w, exclusive := range m[b] {
			if w.class == l.Class && w != whoOf(l) && (exclusive || l.Exclusive) {
				return true
			}
		}
	}
	return false
}

func (m *byteLocks) unlock(l *object.Lock) {
	from, to := bytesOf(l)
	for b := from; b <= to; b++ {
		delete(m[b], whoOf(l))
	}
}

func (m *byteLocks) lock(l *object.Lock) (granted bool) {
	if l.Class == object.LockFlock && m[0] != nil {
		if had, ok := m[0][whoOf(l)]; ok && had != l.Exclusive {
			m.unlock(l) // a conversion
		}
	}
	if m.conflicts(l) {
		return false
	}
	from, to := bytesOf(l)
	for b := from; b <= to; b++ {
		if m[b] == nil {
			m[b] = map[who]bool{}
		}
		m[b][whoOf(l)] = l.Exclusive
	}
	return true
}

// want compares the model with a table, byte by byte, and the table with what it promises
// of itself.
func (m *byteLocks) want(t interface{ Fatalf(string, ...any) }, list []object.Lock) {
	var got byteLocks
	for i := range list {
		l := &list[i]
		from, to := bytesOf(l)
		for b := from; b <= to; b++ {
			if got[b] == nil {
				got[b] = map[who]bool{}
			}
			if _, twice := got[b][whoOf(l)]; twice {
				t.Fatalf("%+v has byte %d twice", list, b)
			}
			got[b][whoOf(l)] = l.Exclusive
		}
		for j := range list {
			o := &list[j]
			if i != j && o.Mine(l) && o.Exclusive == l.Exclusive && l.Last != object.LastByte && o.First == l.Last+1 {
				t.Fatalf("%+v and %+v could be one", *l, *o)
			}
			if i != j && o.Conflicts(l) {
				t.Fatalf("%+v and %+v are both granted", *l, *o)
			}
		}
	}
	for b := range m {
		if len(m[b]) != len(got[b]) || len(m[b]) > 0 && !reflect.DeepEqual(m[b], got[b]) {
			t.Fatalf("byte %d is locked as %v, not %v: %+v", b, got[b], m[b], list)
		}
	}
	if !slices.IsSortedFunc(list, lockOrder) {
		t.Fatalf("%+v is out of order", list)
	}
}

func drawLock(t *rapid.T) object.Lock {
	l := object.Lock{Class: object.LockPOSIX, Session: object.UploadID{byte(rapid.IntRange(1, 3).Draw(t, "session"))}, Owner: rapid.Uint64Range(1, 3).Draw(t, "owner"),
		Exclusive: rapid.Bool().Draw(t, "exclusive"), Last: object.LastByte}
	if rapid.IntRange(0, 4).Draw(t, "flock") == 0 {
		l.Class = object.LockFlock
		return l
	}
	l.First = rapid.Int64Range(0, modelBytes-1).Draw(t, "first")
	if rapid.IntRange(0, 3).Draw(t, "to the end") != 0 {
		l.Last = rapid.Int64Range(l.First, modelBytes-2+1).Draw(t, "last")
		if l.Last == modelBytes-1 { // the model has one place for all that follows
			l.Last = object.LastByte
		}
	}
	return l
}

// TestLockTable: the table of an inode's locks is what a plain array of bytes says, after
// every command of a random history; locks split, join, are upgraded and downgraded, and
// the classes never meet.
func TestLockTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m byteLocks
		s := &tableOnly{}
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			l := drawLock(t)
			if rapid.IntRange(0, 2).Draw(t, "unlock") == 0 {
				m.unlock(&l)
				s.list, _ = unlocked(s.list, &l)
			} else {
				want := m.lock(&l)
				if got := s.lock(&l); got != want {
					t.Fatalf("%+v: granted %v, want %v: %+v", l, got, want, s.list)
				}
			}
			m.want(t, s.list)
		}
	})
}

// tableOnly is the table without a store, as state.lock changes it.
type tableOnly struct{ list []object.Lock }

func (s *tableOnly) lock(l *object.Lock) bool {
	if i := slices.IndexFunc(s.list, func(o object.Lock) bool { return o.Mine(l) }); l.Class == object.LockFlock && i >= 0 && s.list[i].Exclusive != l.Exclusive {
		s.list = slices.Delete(slices.Clone(s.list), i, i+1)
	}
	if inTheWay(s.list, l) != nil {
		return false
	}
	s.list = locked(s.list, l)
	return true
}

func (a *applier) locks(id object.InodeID) []object.Lock {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	list, err := v.Locks(id)
	if err != nil {
		a.t.Fatal(err)
	}
	return list
}

func (a *applier) hasLocks(session byte) bool {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	some, err := v.HasLocks(object.UploadID{session})
	if err != nil {
		a.t.Fatal(err)
	}
	return some
}

// TestLocksOfAMachine: a machine keeps the table and the sessions' index beside each other
// through a random history with ends of sessions; two machines that apply it in other
// batches, and a third that was given an image, are equal to the byte.
func TestLocksOfAMachine(t *testing.T) {
	for seed := range need.Size[uint64](4, 60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		one, two := newApplier(t), newApplier(t)
		var inos []object.InodeID
		for range 3 {
			inos = append(inos, one.born(object.Inode{Type: object.TypeRegular}))
			two.born(object.Inode{Type: object.TypeRegular})
		}
		models := make([]byteLocks, len(inos))
		var seqs [4]uint64
		var batch []group.Entry
		freed := 0
		one.m.o.OnUnlock = func(list []object.InodeID) { freed += len(list) }
		for range 150 {
			at, session := rng.IntN(len(inos)), byte(1+rng.IntN(3))
			l := object.Lock{Class: object.LockPOSIX, Session: object.UploadID{session}, Owner: uint64(1 + rng.IntN(2)), Exclusive: rng.IntN(2) == 0,
				First: int64(rng.IntN(modelBytes - 1)), PID: uint32(rng.IntN(9))}
			l.Last = l.First + int64(rng.IntN(modelBytes-1-int(l.First)))
			if rng.IntN(4) == 0 {
				l.Class, l.First, l.Last = object.LockFlock, 0, object.LastByte
			}
			seqs[session]++
			c := &Command{Token: &Token{Session: l.Session, Seq: seqs[session], Ack: seqs[session] - 1}}
			want := true
			switch rng.IntN(20) {
			case 0:
				c.Token, c.DropLocks = nil, &DropLocks{Sessions: []object.UploadID{l.Session}}
				for i := range models {
					for b := range models[i] {
						for w := range models[i][b] {
							if w.session == session {
								delete(models[i][b], w)
							}
						}
					}
				}
			case 1, 2, 3, 4, 5:
				c.Unlock = &Unlock{Inode: inos[at], Lock: l}
				models[at].unlock(&l)
			default:
				c.Lock = &Lock{Inode: inos[at], Lock: l}
				want = models[at].lock(&l)
			}
			before, had := freed, one.locks(inos[at])
			r := one.apply(c)
			if (r.Conflict == nil) != want {
				t.Fatalf("seed %d: %+v: conflict %+v, want granted %v", seed, c.Lock, r.Conflict, want)
			}
			for i, ino := range inos {
				models[i].want(t, one.locks(ino))
			}
			for s := byte(1); s <= 3; s++ {
				some := slices.ContainsFunc(inos, func(i object.InodeID) bool {
					return slices.ContainsFunc(one.locks(i), func(l object.Lock) bool { return l.Session[0] == s })
				})
				if one.hasLocks(s) != some {
					t.Fatalf("seed %d: session %d has locks: %v, its index says otherwise", seed, s, some)
				}
			}
			if c.Unlock != nil && len(had) > 0 && freed == before && !slices.Equal(had, one.locks(inos[at])) {
				t.Fatalf("seed %d: %+v freed something, and nobody heard of it", seed, c.Unlock)
			}
			data, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, group.Entry{Index: one.index, Data: data})
			if rng.IntN(4) == 0 {
				if _, err := two.m.Apply(batch); err != nil {
					t.Fatal(err)
				}
				batch = nil
			}
		}
		if len(batch) > 0 {
			if _, err := two.m.Apply(batch); err != nil {
				t.Fatal(err)
			}
		}
		want := contents(t, one.m.o.Store)
		if got := contents(t, two.m.o.Store); !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d: two machines of one log differ", seed)
		}
		db, err := meta.Open(meta.Options{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		third := db.Partition(object.Control)
		if err := ImportPartition(t.Context(), third, bytes.NewReader(export1(t, one.m.o.Store)), 1000, 1<<20); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, third); !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d: an image is not what it was made of", seed)
		}
		db.Close()
	}
}

func posix(session byte, owner uint64, exclusive bool, first, last int64) object.Lock {
	return object.Lock{Class: object.LockPOSIX, Session: object.UploadID{session}, Owner: owner, Exclusive: exclusive, First: first, Last: last}
}

// TestLockIsGrantedOnce: a command that comes again says what it said, whatever came
// between; one that waits has no result before it is granted or canceled, and has one then.
func TestLockIsGrantedOnce(t *testing.T) {
	a := newApplier(t)
	ino := a.born(object.Inode{Type: object.TypeRegular})
	mine, other := posix(1, 1, true, 0, 9), posix(2, 1, true, 5, object.LastByte)
	tok := func(session byte, seq uint64) *Token { return &Token{Session: object.UploadID{session}, Seq: seq} }
	lock := &Command{Token: tok(1, 1), Lock: &Lock{Inode: ino, Lock: mine}}
	unlock := &Command{Token: tok(1, 2), Unlock: &Unlock{Inode: ino, Lock: mine}}
	if r := a.apply(lock); r.Conflict != nil || !r.Kept() {
		t.Fatalf("%+v", r)
	}
	// Who does not wait has an answer for good: so a first attempt that comes late takes nothing.
	once := &Command{Token: tok(2, 1), Lock: &Lock{Inode: ino, Lock: other}}
	if r := a.apply(once); r.Conflict == nil || *r.Conflict != mine || !r.Kept() {
		t.Fatalf("%+v", r)
	}
	waits := &Command{Token: tok(2, 2), Lock: &Lock{Inode: ino, Lock: other, Wait: true}}
	if r := a.apply(waits); r.Conflict == nil || r.Kept() {
		t.Fatalf("%+v", r)
	}
	a.apply(unlock)
	if r := a.apply(lock); !r.Recalled {
		t.Fatalf("%+v", r)
	}
	if r := a.apply(once); r.Conflict == nil || !r.Recalled {
		t.Fatalf("%+v", r)
	}
	if list := a.locks(ino); len(list) != 0 {
		t.Fatalf("a late attempt took %+v", list)
	}
	if r := a.apply(waits); r.Conflict != nil || !r.Kept() {
		t.Fatalf("%+v", r)
	}
	if r := a.apply(&Command{Token: tok(2, 2), CancelLock: &CancelLock{Kind: object.KindCanceled}}); !r.Recalled {
		t.Fatalf("it was granted before it was canceled: %+v", r)
	}
	a.apply(&Command{Token: tok(2, 3), Unlock: &Unlock{Inode: ino, Lock: other}})
	again := &Command{Token: tok(2, 4), Lock: &Lock{Inode: ino, Lock: other, Wait: true}}
	for kind, seq := range map[object.Kind]uint64{object.KindCanceled: 4, object.KindDeadlock: 5} {
		if r := a.attempt(&Command{Token: tok(2, seq), CancelLock: &CancelLock{Kind: kind}}); r.Kind != kind {
			t.Fatalf("%+v", r)
		}
		again.Token.Seq = seq
		if r := a.attempt(again); r.Kind != kind || !r.Recalled || len(a.locks(ino)) != 0 {
			t.Fatalf("after it was canceled: %+v, %+v", r, a.locks(ino))
		}
	}
}

// TestLocksGoWithTheirInode, whether it is a file that is reclaimed or a directory.
func TestLocksGoWithTheirInode(t *testing.T) {
	a := newApplier(t)
	var freed []object.InodeID
	a.m.o.OnUnlock = func(list []object.InodeID) { freed = append(freed, list...) }
	flock := object.Lock{Class: object.LockFlock, Session: object.UploadID{1}, Owner: 1, Last: object.LastByte}
	file := a.apply(&Command{Put: &Put{Dir: object.RootInode, Name: "file", Node: object.Inode{Type: object.TypeRegular}}}).Inode.ID
	dir := a.born(object.Inode{Type: object.TypeDirectory})
	a.mkdir("dir", dir, 0)
	for _, ino := range []object.InodeID{file, dir} {
		if r := a.apply(&Command{Lock: &Lock{Inode: ino, Lock: flock}}); r.Conflict != nil {
			t.Fatalf("%+v", r)
		}
	}
	a.apply(&Command{Unlink: &Unlink{Dir: object.RootInode, Name: "file"}})
	if len(a.locks(file)) != 1 {
		t.Fatal("an open file lost its locks with its name")
	}
	v := a.m.View()
	list, err := v.Garbage(0, 0, 10)
	v.Close()
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	a.apply(&Command{Reclaim: &Reclaim{Items: list}})
	r := a.apply(&Command{Prepare: &Prepare{Decider: 0, Halves: []Half{{Dead: &Dead{Dir: dir}}}}})
	a.apply(&Command{Finish: &Finish{Tx: r.Tx, Committed: true}})
	if len(a.locks(file))+len(a.locks(dir)) != 0 || a.hasLocks(1) || !slices.Equal(freed, []object.InodeID{file, dir}) {
		t.Fatalf("left: %+v, %+v; heard of %v", a.locks(file), a.locks(dir), freed)
	}
	if r := a.attempt(&Command{Lock: &Lock{Inode: file, Lock: flock}}); r.Kind != object.KindStale {
		t.Fatalf("%+v", r)
	}
}

// TestLocksAreBounded: neither locking nor the splitting of locks goes beyond the limit,
// one entry fits the store then, and giving up goes on.
func TestLocksAreBounded(t *testing.T) {
	a := newApplier(t)
	ino := a.born(object.Inode{Type: object.TypeRegular})
	many := make([]object.Lock, object.MaxLocks)
	for i := range many {
		many[i] = posix(byte(i%7), uint64(i)<<40|1<<63, true, int64(i)*10+1<<60, int64(i)*10+5+1<<60)
	}
	slices.SortFunc(many, lockOrder)
	txn := a.m.o.Store.Begin()
	s := &state{txn: txn}
	s.setLocks(ino, nil, many)
	if s.err != nil || txn.Commit(a.index) != nil {
		t.Fatal(s.err)
	}
	more := posix(9, 1, false, 0, 5)
	if r := a.attempt(&Command{Lock: &Lock{Inode: ino, Lock: more}}); r.Kind != object.KindNoLocks {
		t.Fatalf("%+v", r)
	}
	split := many[5]
	split.First, split.Last = split.First+1, split.Last-1
	if r := a.attempt(&Command{Unlock: &Unlock{Inode: ino, Lock: split}}); r.Kind != object.KindNoLocks {
		t.Fatalf("%+v", r)
	}
	a.apply(&Command{Lock: &Lock{Inode: ino, Lock: many[5]}})
	a.apply(&Command{Unlock: &Unlock{Inode: ino, Lock: many[5]}})
	a.apply(&Command{Lock: &Lock{Inode: ino, Lock: more}})
	for session := range byte(7) {
		for done := false; !done; {
			done = a.apply(&Command{DropLocks: &DropLocks{Sessions: []object.UploadID{{session}}}}).Done
		}
	}
	if list := a.locks(ino); len(list) != 1 || list[0] != more {
		t.Fatalf("left: %d locks", len(list))
	}
	for _, bad := range []object.Lock{{}, {Class: 3}, posix(1, 1, true, -1, 5), posix(1, 1, true, 5, 4), {Class: object.LockFlock, First: 1, Last: object.LastByte}, {Class: object.LockFlock, Last: 7}} {
		for _, c := range []*Command{{Lock: &Lock{Inode: ino, Lock: bad}}, {Unlock: &Unlock{Inode: ino, Lock: bad}}} {
			if r := a.attempt(c); r.Kind != object.KindInvalid {
				t.Fatalf("%+v: %+v", bad, r)
			}
		}
	}
}

func (a *applier) lease(session byte) LeaseState {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	state, err := v.Lease(object.UploadID{session})
	if err != nil {
		a.t.Fatal(err)
	}
	return state
}

// TestLeases: they go from state to state in one direction; what is decided in a raft term
// is done in that one only; a fenced session does nothing, and does not begin again.
func TestLeases(t *testing.T) {
	a := newApplier(t)
	ino := a.born(object.Inode{Type: object.TypeRegular})
	set := func(to LeaseState, sessions ...byte) *Command {
		c := &SetLease{State: to}
		for _, s := range sessions {
			c.Sessions = append(c.Sessions, object.UploadID{s})
		}
		return &Command{SetLease: c}
	}
	want := func(session byte, state LeaseState) {
		t.Helper()
		if got := a.lease(session); got != state {
			t.Fatalf("session %d is in state %d, want %d", session, got, state)
		}
	}
	a.apply(set(LeaseActive, 1))
	a.apply(set(LeaseActive, 2))
	a.apply(set(LeaseActive, 1))
	a.apply(set(LeaseFenced, 1)) // out of order: nothing
	a.apply(set(0, 1))
	a.apply(set(LeaseEnding, 3))
	want(1, LeaseActive)
	want(3, 0)

	late := set(LeaseEnding, 1)
	late.SetLease.Term = 4
	data, err := late.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, term := range []uint64{3, 5, 4} {
		want(1, LeaseActive)
		a.index++
		if _, err := a.m.Apply([]group.Entry{{Index: a.index, Term: term, Data: data}}); err != nil {
			t.Fatal(err)
		}
	}
	want(1, LeaseEnding)

	one := object.UploadID{1}
	put := func(name string, seq uint64) *Command {
		return &Command{Token: &Token{Session: one, Seq: seq}, Put: &Put{Dir: object.RootInode, Name: name, Node: object.Inode{Type: object.TypeRegular}}}
	}
	lock := &Command{Token: &Token{Session: one, Seq: 9}, Lock: &Lock{Inode: ino, Lock: posix(1, 1, true, 0, 5)}}
	a.apply(put("before", 1))
	a.apply(lock)
	fenced := put("fenced", 5)
	fenced.Token.Fence = []byte{1}
	a.apply(&Command{Token: fenced.Token, Fence: &Fence{}})
	a.apply(&Command{EndSessions: &EndSessions{Sessions: []object.UploadID{one}}})
	refused := func(c *Command) {
		t.Helper()
		before := contents(t, a.m.o.Store)
		if r := a.attempt(c); r.Kind != object.KindSessionEnded || !r.Kept() {
			t.Fatalf("%+v", r)
		}
		if !reflect.DeepEqual(before, contents(t, a.m.o.Store)) {
			t.Fatalf("%+v changed something", c)
		}
	}
	refused(put("after", 2))
	refused(lock) // though it has a result: what it took is lost
	refused(fenced)
	refused(&Command{Token: &Token{Session: one, Seq: 6, Fence: []byte{2}}, Fence: &Fence{}})
	refused(&Command{Token: &Token{Session: one, Seq: 7}, Unlock: &Unlock{Inode: ino, Lock: posix(1, 1, true, 0, 5)}})
	refused(set(LeaseActive, 1))
	if r := a.apply(put("before", 1)); !r.Recalled {
		t.Fatalf("what had happened is told: %+v", r)
	}
	a.apply(set(LeaseFenced, 1))
	a.apply(&Command{DropLocks: &DropLocks{Sessions: []object.UploadID{one}}})
	a.apply(set(0, 1))
	want(1, 0)
	want(2, LeaseActive)
	refused(set(LeaseActive, 1)) // not even after its lease is gone

	// The mark stays as long as the session is seen.
	hours := put("hours later", 3)
	hours.Now = 5 * endedSeen
	if r := a.attempt(hours); r.Kind != object.KindSessionEnded {
		t.Fatalf("%+v", r)
	}
	if r := a.apply(&Command{EndSession: &EndSession{Session: one, Since: 4 * endedSeen}}); !r.Done {
		t.Fatalf("%+v", r)
	}
	refused(put("after", 4))

	a.m.o.Partition = 1
	if r := a.attempt(set(LeaseActive, 8)); r.Kind != object.KindInvalid {
		t.Fatalf("%+v", r)
	}
}

// TestLockCommandsSurviveTheLog pins the numbers of the commands and their results.
func TestLockCommandsSurviveTheLog(t *testing.T) {
	l := object.Lock{Class: 1, Session: object.UploadID{7}, Owner: 1 << 63, Exclusive: true, First: 3, Last: object.LastByte, PID: 4}
	for want, c := range map[string]*Command{
		"0:60": {Lock: &Lock{Inode: 5, Lock: l, Wait: true}}, "0:61": {Unlock: &Unlock{Inode: 5, Lock: l}}, "0:62": {CancelLock: &CancelLock{Kind: object.KindDeadlock}},
		"0:63": {DropLocks: &DropLocks{Sessions: []object.UploadID{{1}}}}, "0:64": {SetLease: &SetLease{Sessions: []object.UploadID{{1}}, State: 2, Term: 9}},
		"0:65": {EndSessions: &EndSessions{Sessions: []object.UploadID{{1}}}},
	} {
		data, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeCommand(data)
		if err != nil || !reflect.DeepEqual(back, c) {
			t.Fatalf("%+v became %+v: %v", c, back, err)
		}
		var raw map[uint64]any
		if err := codec.dec.Unmarshal(data[1:], &raw); err != nil {
			t.Fatal(err)
		}
		var number uint64
		for n := range raw {
			number = max(number, n)
		}
		if got := fmt.Sprintf("0:%d", number); got != want {
			t.Errorf("%+v has number %s, want %s", c, got, want)
		}
	}
}
