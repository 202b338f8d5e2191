package access

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestLeaderHangs: the others go on within seconds, an entry without a token is not
// repeated, and the one that hangs shows nothing stale.
func TestLeaderHangs(t *testing.T) {
	t.Parallel()
	c := start(t)
	a := c.all[0]
	id := c.file("f")
	c.must(c.all[3].do(within(t, 10*time.Second), write(id, 1)))
	c.wires(a, (*proxy).pause)
	once := encode(t, write(id, 2))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := c.all[3].Propose(ctx, part, once)
	wantKind(t, "an entry that was sent to who hangs", err, object.KindTimeout)
	began := time.Now()
	for i, n := range c.others(a) {
		cmd := write(id, uint64(10+i))
		cmd.Token = &namespace.Token{Session: object.UploadID{1}, Seq: uint64(i + 1)}
		c.must(n.ProposeRepeatable(within(t, 15*time.Second), part, encode(t, cmd)))
		if got, err := n.read(within(t, 15*time.Second), id); got != uint64(10+i) || err != nil {
			t.Errorf("%s read %d: %v", n.id, got, err)
		}
	}
	t.Logf("all went on after %v", time.Since(began).Round(time.Millisecond))
	if got, err := a.read(within(t, 500*time.Millisecond), id); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("the node that hangs read %d: %v", got, err)
	}
	c.wires(a, (*proxy).resume)
	if got, err := a.read(within(t, 20*time.Second), id); got != 12 || err != nil {
		t.Errorf("the node that hung read %d: %v", got, err)
	}
	if n := c.leader().machine.times(once); n > 1 {
		t.Errorf("what must not be repeated was applied %d times", n)
	}
}

// TestAnswerLost: an entry is applied and its proposer does not hear of it. It is in
// the log once; one with a token is proposed again, through others, and has its
// effect once.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	c := startWith(t, time.Second)
	d, id := c.all[3], c.file("f")
	c.must(d.do(within(t, 10*time.Second), write(id, 1))) // d knows who leads
	c.proxies[[2]string{"d", "a"}].hush()
	once := encode(t, write(id, 2))
	_, err := d.Propose(within(t, 10*time.Second), part, once)
	wantKind(t, "an entry whose answer is lost", err, object.KindTimeout)

	link := write(id, 3)
	link.Token = &namespace.Token{Session: object.UploadID{1}, Seq: 1}
	again := encode(t, link)
	r := c.must(d.ProposeRepeatable(within(t, 15*time.Second), part, again))
	c.proxies[[2]string{"d", "a"}].resume()
	leader := c.leader()
	if n := leader.machine.times(once); n != 1 {
		t.Errorf("what must not be repeated was applied %d times", n)
	}
	// The suspect was not asked first; whoever was, it had its effect once.
	if n := leader.machine.times(again); n < 1 || r.Recalled != (n > 1) {
		t.Errorf("an entry with a token was applied %d times; recalled %v", n, r.Recalled)
	}
	if got, err := d.read(within(t, 10*time.Second), id); got != 3 || err != nil {
		t.Errorf("read %d: %v", got, err)
	}
}

// TestOneLinkCut: who cannot reach the leader goes through who can.
func TestOneLinkCut(t *testing.T) {
	t.Parallel()
	c := start(t)
	id := c.file("f")
	for _, n := range []*node{c.all[1], c.all[3]} {
		c.proxies[[2]string{n.id, "a"}].setCut(true)
		c.proxies[[2]string{"a", n.id}].setCut(true)
	}
	for i, n := range []*node{c.all[1], c.all[3], c.all[0]} {
		c.must(n.again(within(t, time.Minute), write(id, uint64(i+5))))
		if got, err := n.read(within(t, time.Minute), id); got != uint64(i+5) || err != nil {
			t.Errorf("%s read %d: %v", n.id, got, err)
		}
	}
	// A large one, in pieces, is relayed too.
	big := &namespace.Command{Put: &namespace.Put{Dir: object.RootInode, Name: "big", Node: object.Inode{Meta: map[string]string{"k": string(make([]byte, pieceBytes))}}}}
	r, err := c.all[1].again(within(t, time.Minute), big)
	must(t, err)
	wantKind(t, "what does not fit the store", r.Err(), object.KindTooLarge)
}

// TestKilled: without a majority nothing is answered; with it again, all is there.
func TestKilled(t *testing.T) {
	t.Parallel()
	c := start(t)
	id := c.file("f")
	c.must(c.all[3].again(within(t, time.Minute), write(id, 1)))
	c.all[0].stop()
	for i, n := range c.others(c.all[0]) {
		c.must(n.again(within(t, time.Minute), write(id, uint64(i+2))))
	}
	c.all[1].stop()
	for _, n := range []*node{c.all[2], c.all[3]} {
		got, err := n.read(within(t, 400*time.Millisecond), id)
		if !object.IsKind(err, object.KindUnavailable) {
			t.Errorf("%s alone read %d: %v", n.id, got, err)
		}
	}
	c.all[1].open()
	for _, n := range c.others(c.all[0]) {
		if got, err := n.read(within(t, 20*time.Second), id); got != 4 || err != nil {
			t.Errorf("%s read %d: %v", n.id, got, err)
		}
	}
}

// TestSlowLeader: a leader that needs longer than one attempt waits is not asked for
// the same over and over: later attempts wait longer.
func TestSlowLeader(t *testing.T) {
	t.Parallel()
	c := start(t)
	id := c.file("f")
	a, b := c.all[0], c.all[1]
	b.stop()
	c.wait, c.longest = 30*time.Millisecond, 20*time.Second
	b.open()
	var asked atomic.Int32
	slow := func([]byte) error {
		asked.Add(1)
		time.Sleep(300 * time.Millisecond) // the leader's pace
		return nil
	}
	a.check.Store(&slow)
	c.whileLeading(a, func() error {
		r, err := b.again(within(t, 30*time.Second), write(id, 9))
		if err == nil && asked.Load() > 1 && !r.Doubtful {
			t.Error("attempts of unknown outcome are forgotten")
		}
		return err
	})
	if n := asked.Load(); n > 20 {
		t.Errorf("it was asked %d times", n)
	}
	if got, err := b.read(within(t, 20*time.Second), id); got != 9 || err != nil {
		t.Errorf("read %d: %v", got, err)
	}
}
