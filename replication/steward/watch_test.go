package steward

import (
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
)

// TestSilence: silence grows only while a node is asked in vain, and by bounded steps.
func TestSilence(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	w := newWatch("me", func() time.Time { return now }, 5*time.Second, 4*time.Second)
	n := &control.Node{ID: "n", Incarnation: control.Incarnation{1}}
	ask := func(r *report) {
		t.Helper()
		if !w.begin("n", time.Second) {
			t.Fatal("it cannot be asked")
		}
		w.end("n", r)
	}
	seen := func() control.NodeSeen { s, _ := w.seen(n); return s }
	if _, ok := w.seen(n); ok {
		t.Error("a node that was never asked is known")
	}
	if w.begin("me", 0) {
		t.Error("it asks itself")
	}
	ask(&report{Incarnation: n.Incarnation})
	if s := seen(); !s.Up || s.Silent != 0 {
		t.Errorf("%+v", s)
	}
	if w.begin("n", time.Second) {
		t.Error("it is asked again at once")
	}
	now = now.Add(2 * time.Second)
	ask(nil)
	if s := seen(); s.Up || s.Silent != 2*time.Second {
		t.Errorf("%+v", s)
	}
	now = now.Add(time.Hour) // in which this process stood still
	ask(nil)
	if s := seen(); s.Silent != 6*time.Second {
		t.Errorf("an hour in which nobody was asked is a silence of %v", s.Silent)
	}
	ask2 := func() { now = now.Add(2 * time.Second); ask(nil) }
	ask2()
	if s := seen(); s.Silent != 8*time.Second {
		t.Errorf("%+v", s)
	}
	w.reset()
	if s := seen(); s.Silent != 0 {
		t.Errorf("a new control leader has listened for %v", s.Silent)
	}
	now = now.Add(time.Second)
	ask(&report{Incarnation: control.Incarnation{2}})
	if s := seen(); s.Up || s.Silent != 0 {
		t.Errorf("a process that the state does not name: %+v", s)
	}
	now = now.Add(time.Second)
	ask(&report{Incarnation: n.Incarnation})
	if s := seen(); !s.Up {
		t.Errorf("%+v", s)
	}
	now = now.Add(6 * time.Second)
	if s := seen(); s.Up {
		t.Error("an old answer is a sign of life")
	}
}

func TestNews(t *testing.T) {
	t.Parallel()
	w := newWatch("me", time.Now, time.Hour, time.Hour)
	step := func(what string, want bool, r *report) {
		t.Helper()
		w.begin("n", 0)
		if got := w.end("n", r); got != want {
			t.Errorf("%s: news %v", what, got)
		}
	}
	a := &report{Incarnation: control.Incarnation{1}}
	b := &report{Incarnation: control.Incarnation{1}, Replicas: []heldReport{{Partition: 1, Generation: 1, Held: control.HeldLive}}}
	step("the first answer", true, a)
	step("the same", false, a)
	step("another record", true, b)
	step("silence", true, nil)
	step("more silence", false, nil)
	step("it is back", true, b)
}

func TestBook(t *testing.T) {
	t.Parallel()
	b := NewBook()
	if _, err := b.Resolve("n"); err == nil {
		t.Error("an unknown node")
	}
	is := func(want string) {
		t.Helper()
		if got, err := b.Resolve("n"); got != want || err != nil {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
	b.adopt("n", "old:1")
	is("old:1")
	b.say("n", "new:1")
	is("new:1")
	b.adopt("n", "old:1") // the state does not know yet
	is("new:1")
	b.adopt("n", "newer:1")
	is("newer:1")
}
