package group_test

import (
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/group"
)

// TestYield: of a group of which all are left, one is renewed. The others, a majority of what
// it was, must not elect each other on the old log before that one is there.
func TestYield(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, others := c.all[0], c.all[1:]
	c.put(a, "k")
	c.same(c.all...)
	end := a.Stats()
	var list []group.Member
	for _, r := range c.all {
		list = append(list, group.Member{ID: r.id, Address: string(r.addr), Voter: true})
	}
	for _, r := range c.all {
		r.stop(t)
	}
	offline := func(r *replica, do func(group.Config) error) {
		r.open(t)
		must(t, do(c.config(r, group.Config{})))
		r.stop(t)
	}
	offline(a, func(cfg group.Config) error {
		return group.Renew(cfg, group.Renewal{Index: end.LastIndex + 1<<34, Term: end.Term + 1, Members: list})
	})
	for range 2 { // it may be repeated
		for _, r := range others {
			offline(r, func(cfg group.Config) error { return group.Yield(cfg, list[0]) })
		}
	}
	for _, r := range others {
		c.start(r, group.Config{})
	}
	for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		for _, r := range others {
			if r.IsLeader() {
				t.Fatalf("%s leads by the old log", r.id)
			}
		}
	}
	c.start(a, group.Config{})
	if l := c.leader(); l != a || c.put(a, "k") != 2 {
		t.Errorf("%s leads", l.id)
	}
	c.same(c.all...)
}
