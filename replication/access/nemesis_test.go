package access

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// op is one operation on a register: a file.
type op struct {
	file  object.InodeID
	write bool
	value uint64
}

// register is the model: a number per file, 0 at first.
func register() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
			by := map[object.InodeID][]porcupine.Operation{}
			for _, o := range history {
				by[o.Input.(op).file] = append(by[o.Input.(op).file], o)
			}
			for _, list := range by {
				parts = append(parts, list)
			}
			return parts
		},
		Init: func() any { return uint64(0) },
		Step: func(state, input, output any) (bool, any) {
			if in := input.(op); in.write {
				return true, in.value
			}
			return output == state, state
		},
	}
}

// sent is what a client proposed, and what it was told.
type sent struct {
	entry      []byte
	repeatable bool
	err        error
}

// load is clients that read and write files through all nodes, and note what they see.
type load struct {
	c     *cluster
	end   context.CancelFunc
	wg    sync.WaitGroup
	began time.Time
	done  atomic.Int64 // operations that succeeded

	mu      sync.Mutex // guards what follows
	history []porcupine.Operation
	sent    []sent
	nodes   []*node // who is asked
	unknown int
	failed  int
	slowest time.Duration
}

func (c *cluster) load(files []object.InodeID, clients int) *load {
	ctx, end := context.WithCancel(c.t.Context())
	l := &load{c: c, end: end, began: time.Now()}
	l.ask(c.all...)
	for i := range clients {
		l.wg.Go(func() { l.client(ctx, i, files) })
	}
	return l
}

// ask changes who is asked.
func (l *load) ask(nodes ...*node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = slices.Clone(nodes)
}

// any is a node to ask; its users.Done follows.
func (l *load) any() *node {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[rand.IntN(len(l.nodes))]
	n.users.Add(1)
	return n
}

// client works until ctx ends. Every second one has a token, and proposes again
// what is unknown.
func (l *load) client(ctx context.Context, id int, files []object.InodeID) {
	session := object.UploadID{1, byte(id)}
	for i := uint64(1); ctx.Err() == nil; i++ {
		o := op{file: files[rand.IntN(len(files))], write: rand.IntN(2) == 0, value: uint64(id+1)<<32 | i}
		if !o.write {
			l.readOne(ctx, id, o)
			continue
		}
		cmd := write(o.file, o.value)
		if id%2 == 0 {
			cmd.Token = &namespace.Token{Session: session, Seq: i, Ack: i - 1}
		}
		l.writeOne(ctx, id, o, cmd)
	}
}

func (l *load) readOne(ctx context.Context, client int, o op) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	call := time.Since(l.began)
	n := l.any()
	v, err := n.read(ctx, o.file)
	ended, at := time.Since(l.began), n.standing()
	n.users.Done()
	l.note(client, o, call, ended, v, err, nil, false, at)
}

func (l *load) writeOne(ctx context.Context, client int, o op, cmd *namespace.Command) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	entry := encode(l.c.t, cmd)
	at := l.any()
	propose := at.Propose
	if cmd.Token != nil {
		propose = at.ProposeRepeatable
	}
	call := time.Since(l.began)
	r, err := propose(ctx, part, entry)
	ended, standing := time.Since(l.began), at.standing()
	at.users.Done()
	if err == nil {
		if err = r.Err(); err == nil {
			standing += fmt.Sprintf(", its index is %d", r.Index)
		}
	}
	l.note(client, o, call, ended, 0, err, entry, cmd.Token != nil, standing)
}

// standing says where a replica is in the log, for the history that a failure prints.
func (n *node) standing() string {
	if n.group == nil {
		return n.id
	}
	s := n.group.Stats()
	return fmt.Sprintf("%s (%s, term %d, committed %d, applied %d)", n.id, s.State, s.Term, s.Committed, s.Applied)
}

// note keeps what a client saw. What is unknown may happen until the end of time.
func (l *load) note(client int, o op, call, now time.Duration, v uint64, err error, entry []byte, repeatable bool, at string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if entry != nil {
		l.sent = append(l.sent, sent{entry, repeatable, err})
	}
	p := porcupine.Operation{ClientId: client, Input: o, Output: v, Call: int64(call), Return: int64(now), Metadata: at}
	switch {
	case err == nil:
		l.done.Add(1)
		l.slowest = max(l.slowest, now-call)
	case o.write && object.IsKind(err, object.KindTimeout):
		l.unknown++
		p.Return = math.MaxInt64
	default: // a read that failed, or a write that certainly was none
		l.failed++
		if k := object.KindOf(err); k != object.KindUnavailable && k != object.KindCanceled && k != object.KindOverload {
			l.c.t.Errorf("client %d: %v", client, err)
		}
		return
	}
	l.history = append(l.history, p)
}

// more waits until n more operations have succeeded.
func (l *load) more(n int64) {
	l.c.t.Helper()
	from := l.done.Load()
	eventually(l.c.t, fmt.Sprintf("%d more operations", n), func() bool { return l.done.Load() >= from+n })
}

// check ends the load, and judges what was seen.
func (l *load) check() {
	t := l.c.t
	t.Helper()
	l.end()
	l.wg.Wait()
	l.c.leader()
	eventually(t, "all replicas alike", func() bool {
		list := l.c.running()
		for _, n := range list {
			if n.machine.Applied() != list[0].machine.Applied() {
				return false
			}
		}
		return true
	})
	repeated := 0
	for _, n := range l.c.running() {
		for _, s := range l.sent {
			times := n.machine.times(s.entry)
			unknown := object.IsKind(s.err, object.KindTimeout)
			switch {
			case times > 1 && s.repeatable:
				repeated++
			case times > 1:
				t.Errorf("%s: an entry that must not be repeated was applied %d times (%v)", n.id, times, s.err)
			case times == 0 && s.err == nil:
				t.Errorf("%s: an entry that was acknowledged was never applied", n.id)
			case times != 0 && s.err != nil && !unknown:
				t.Errorf("%s: an entry was applied, its client heard %v", n.id, s.err)
			}
		}
	}
	switch got := porcupine.CheckOperationsTimeout(register(), l.history, 20*time.Second); got {
	case porcupine.Illegal:
		t.Error("what the clients saw is not linearizable")
		l.show()
	case porcupine.Unknown:
		t.Error("the checker was not done in time")
	}
	t.Logf("%d operations, %d unknown, %d failed, %d entries more than once in a log; the slowest took %v",
		l.done.Load(), l.unknown, l.failed, repeated, l.slowest.Round(time.Millisecond))
}

// show prints the history of the files that are wrong.
func (l *load) show() {
	model := register()
	for _, list := range model.Partition(l.history) {
		if porcupine.CheckOperationsTimeout(register(), list, 10*time.Second) != porcupine.Illegal {
			continue
		}
		slices.SortFunc(list, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		for _, o := range list {
			in, what, v := o.Input.(op), "read ", o.Output.(uint64)
			if in.write {
				what, v = "write", in.value
			}
			l.c.t.Logf("%v %s %d.%-4d by %d at %-9v to %v %v", in.file, what, v>>32, uint32(v), o.ClientId,
				time.Duration(o.Call).Round(time.Microsecond), time.Duration(o.Return).Round(time.Microsecond), o.Metadata)
		}
	}
}

// TestLinearizable reads and writes registers through all nodes, the one without a
// replica too, while leaders are killed, cut off, paused and changed, and apply later
// than their followers.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	c := startWith(t, time.Second)
	var files []object.InodeID
	for i := range 4 {
		files = append(files, c.file(fmt.Sprint("f", i)))
	}
	l := c.load(files, 8)
	l.more(20)
	for _, nemesis := range []struct {
		name string
		do   func()
	}{
		{"transfer", l.transfer},
		{"pause", func() { l.pause(c.leader()) }},
		{"cut", func() { l.cut(c.leader()) }},
		{"kill", func() { l.kill(c.leader()) }},
		{"a slow machine", func() { l.late(c.leader()) }},
		{"cut a follower", func() { l.cut(c.others(c.leader())[0]) }},
	} {
		began, before := time.Now(), l.done.Load()
		nemesis.do()
		l.more(30)
		// From when to when, by the clock of the history that a failure prints.
		t.Logf("%s: %v to %v, %d operations", nemesis.name, began.Sub(l.began).Round(time.Millisecond), time.Since(l.began).Round(time.Millisecond), l.done.Load()-before)
	}
	l.check()
}

// kill stops a node, and starts it again when the others have gone on.
func (l *load) kill(n *node) {
	l.c.t.Helper()
	l.ask(without(l.c.all, n)...)
	n.stop()
	l.c.leader()
	l.more(20)
	n.open()
	l.ask(l.c.all...)
}

func (l *load) cut(n *node) {
	l.c.t.Helper()
	l.c.wires(n, func(p *proxy) { p.setCut(true) })
	l.c.leader(without(l.c.running(), n)...)
	l.more(20)
	l.c.wires(n, func(p *proxy) { p.setCut(false) })
}

func (l *load) pause(n *node) {
	l.c.t.Helper()
	l.c.wires(n, (*proxy).pause)
	l.c.leader(without(l.c.running(), n)...)
	l.more(20)
	l.c.wires(n, (*proxy).resume)
}

// late makes a leader apply later than its followers. A read that asks one of these and
// the next, at the leader, meet within that time.
func (l *load) late(n *node) {
	l.c.t.Helper()
	n.late.Store(int64(20 * time.Millisecond))
	l.more(80)
	n.late.Store(0)
}

func (l *load) transfer() {
	ctx, cancel := context.WithTimeout(l.c.t.Context(), 2*time.Second)
	defer cancel()
	_ = l.c.leader().group.TransferLeadership(ctx, "") // on a busy machine it may not come to pass
}

func without(list []*node, n *node) (out []*node) {
	for _, m := range list {
		if m != n {
			out = append(out, m)
		}
	}
	return out
}
