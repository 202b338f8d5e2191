package transport

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestNodesComeAndGo runs 64 groups of three nodes through a day of theirs: a node
// changes its address, the secret is replaced, a node dies and comes back elsewhere.
// Every group commits at each step, and in the end all replicas have all.
//
// Not beside other tests: 64 groups elect anew when they are short of time.
func TestNodesComeAndGo(t *testing.T) {
	const groups = 64
	first, second := NewSecret(), NewSecret()
	d := &day{t: t, book: &book{}, stores: map[string][]*raft.InmemStore{}}
	for _, name := range names(3) {
		for range groups {
			d.stores[name] = append(d.stores[name], raft.NewInmemStore())
		}
		d.start(name, first)
	}
	d.commit("first")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for g := range 4 { // something is always under way
		load.Go(func() {
			pause := time.NewTicker(5 * time.Millisecond) // what n3 lacks it must get in time
			defer pause.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				d.try(g, fmt.Sprintf("load %d", i))
				<-pause.C
			}
		})
	}
	// Its old address works for a while, and then no more.
	old := proxy.New(t, d.address("n2"))
	d.book.set("n2", old.Addr())
	eventually(t, "n2 is reached by way of the first address", func() bool { return d.linked("n2", old.Addr()) == 4 })
	d.book.set("n2", d.nodes["n2"].listeners[0].Addr().String())
	eventually(t, "n2 is reached at its new address", func() bool { return d.linked("n2", old.Addr()) == 0 })
	old.Die()
	d.commit("moved")

	for _, secrets := range [][]Secret{{first, second}, {second, first}, {second}} {
		for _, n := range d.nodes {
			must(t, n.SetSecrets(secrets...))
		}
		current := d.nodes["n1"].id.names()[0]
		eventually(t, "all connections stand under the current secret", func() bool { return d.all(func(l *link) bool { return l.w.under == current }) })
	}
	d.commit("rotated")

	d.kill("n3")
	d.commit("without n3")
	d.start("n3", second)
	d.commit("n3 is back")
	stop()
	load.Wait()
	for g := range groups {
		for name, reps := range d.reps {
			eventually(t, fmt.Sprintf("group %d at %s has all", g, name), func() bool {
				for _, text := range d.said {
					if !reps[g].fsm.has(text) {
						return false
					}
				}
				return true
			})
		}
	}
}

// day is what TestNodesComeAndGo happens to.
type day struct {
	t      *testing.T
	book   *book
	stores map[string][]*raft.InmemStore // by node, by group: they outlive it
	said   []string                      // what every group has committed

	mu    sync.Mutex // guards what follows
	nodes map[string]*Node
	reps  map[string][]*replica // by node, by group
}

// start starts a node at a new address; its replicas have a generation.
func (d *day) start(name string, s Secret) {
	d.t.Helper()
	n := open(d.t, d.book, Options{Node: name, Secrets: []Secret{s}})
	var reps []*replica
	for g, store := range d.stores[name] {
		voters := []string{"n1#1", "n2#1", "n3#1"}
		if last, _ := store.LastIndex(); last > 0 {
			voters = nil
		}
		c := raftConfig(n)
		c.LocalID = raft.ServerID(name + "#1")
		reps = append(reps, startOn(d.t, n, object.PartitionID(g), voters, "", c, store))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.nodes == nil {
		d.nodes, d.reps = map[string]*Node{}, map[string][]*replica{}
	}
	d.nodes[name], d.reps[name] = n, reps
}

func (d *day) address(name string) string {
	addr, err := d.book.resolve(name)
	must(d.t, err)
	return addr
}

// kill ends a node's transport as the end of its process would, then what hangs on it.
func (d *day) kill(name string) {
	d.t.Helper()
	d.mu.Lock()
	n, reps := d.nodes[name], d.reps[name]
	delete(d.nodes, name)
	delete(d.reps, name)
	d.mu.Unlock()
	must(d.t, n.Close())
	for _, r := range reps {
		r.stop()
	}
}

// linked counts the connections to a node by way of an address: two each of two nodes.
func (d *day) linked(name, addr string) (k int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.nodes {
		for _, p := range n.peerList() {
			for _, l := range []*lane{p.urgent, p.bulk} {
				if up := l.ready(); p.node == name && up != nil && up.w.dialled == addr {
					k++
				}
			}
		}
	}
	return k
}

// all reports whether it holds for every connection for raft that was dialled.
func (d *day) all(is func(*link) bool) bool {
	for _, n := range d.nodes {
		for _, p := range n.peerList() {
			for _, l := range []*lane{p.urgent, p.bulk} {
				if up := l.ready(); up != nil && !is(up) {
					return false
				}
			}
		}
	}
	return true
}

// try proposes at the leader of a group, if there is one.
func (d *day) try(g int, text string) bool {
	d.mu.Lock()
	var lead *raft.Raft
	for _, reps := range d.reps {
		if reps[g].r.State() == raft.Leader {
			lead = reps[g].r
		}
	}
	d.mu.Unlock()
	if lead == nil {
		time.Sleep(time.Millisecond)
		return false
	}
	return lead.Apply([]byte(text), 2*time.Second).Error() == nil
}

// commit has every group commit something.
func (d *day) commit(text string) {
	d.t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for g := range d.stores["n1"] {
		wg.Go(func() {
			for !d.try(g, text) {
				if time.Since(began) > time.Minute {
					d.t.Errorf("group %d did not commit %q", g, text)
					return
				}
			}
		})
	}
	wg.Wait()
	d.said = append(d.said, text)
	d.t.Logf("%q after %v", text, time.Since(began).Round(time.Millisecond))
}
