package steward_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// some is a node that runs.
func (c *cluster) some() *node {
	for _, n := range c.all {
		if n.process != nil && n.alive() {
			return n
		}
	}
	c.t.Fatal("no node runs")
	return nil
}

// now is the state, linearizable; nil when there is none to be had.
func (c *cluster) now() *control.State {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := c.some().state(ctx, true)
	if err != nil {
		return nil
	}
	return s
}

// must is now, waited for.
func (c *cluster) must() (s *control.State) {
	c.t.Helper()
	c.eventually("the control state", func() bool { s = c.now(); return s != nil })
	return s
}

func (c *cluster) do(cmd *control.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := c.some().propose(ctx, cmd)
	if err != nil {
		return err
	}
	return r.Err()
}

// write puts keys into every data partition; what is acknowledged must be there for ever.
func (c *cluster) write(name string) {
	c.t.Helper()
	for p := range object.PartitionID(c.must().Header.Partitions) {
		p++
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		from := c.some().process
		_, err := from.anywhere(ctx, p, methodWrite, append([]byte{byte(p)}, name...), func(ctx context.Context, r *replica) ([]byte, error) {
			_, err := r.Propose(ctx, []byte(name))
			return nil, err
		})
		cancel()
		if err != nil {
			c.t.Fatalf("writing %s to partition %d: %v\n%s", name, p, err, c.describe())
		}
		c.acked[p] = append(c.acked[p], name)
	}
}

// settled reports whether every partition is on n voters as planned, in the map, in raft and on the nodes.
func (c *cluster) settled(n int) bool {
	s := c.now()
	if s == nil || s.Planned < s.Inputs {
		return false
	}
	for i := range s.Partitions {
		p := &s.Partitions[i]
		want := s.Target.Of(p.ID)
		voters := 0
		for _, r := range p.Replicas {
			x := c.find(string(r.ID.Node))
			if x == nil {
				return false
			}
			at := x.replica(p.ID)
			switch {
			case r.Lost || at == nil || at.id != r.ID.String():
				return false
			case r.State == control.InForce && slices.Contains(want, r.ID.Node):
				voters++
			case r.State == control.Learner && i == 0:
			default:
				return false
			}
			m := at.Members()
			k := slices.IndexFunc(m, func(m group.Member) bool { return m.ID == at.id })
			if k < 0 || m[k].Voter != (r.State == control.InForce) || len(m) != len(p.Replicas) {
				return false
			}
		}
		if voters != len(want) || i > 0 && voters != n {
			return false
		}
	}
	return true
}

// check compares the data of all replicas with what was acknowledged.
func (c *cluster) check() {
	c.t.Helper()
	s := c.must()
	for p, keys := range c.acked {
		for _, r := range s.Partitions[p].Replicas {
			at := c.find(string(r.ID.Node)).replica(p)
			c.eventually(fmt.Sprintf("%s of partition %d to have all of %d keys", r.ID, p, len(keys)), func() bool {
				have := at.m.keys()
				return !slices.ContainsFunc(keys, func(k string) bool { return !have[k] })
			})
		}
	}
}

func (c *cluster) describe() (text string) {
	s := c.now()
	if s == nil {
		return "no control state can be read"
	}
	for _, n := range s.Nodes {
		text += fmt.Sprintf("\n%s %s weight %d at %s", n.ID, n.State(), n.Weight, n.Peer)
	}
	for i := range s.Partitions {
		p := &s.Partitions[i]
		text += fmt.Sprintf("\npartition %d since %d target %v: %v;", i, p.Since, s.Target.Of(p.ID), p.Replicas)
		for _, n := range c.all {
			if n.process == nil {
				continue
			}
			if r := n.replica(p.ID); r != nil {
				st := r.Stats()
				text += fmt.Sprintf(" [%s %s in %d, ready in %d, led by %q, has %d, committed %d, %v]",
					r.id, st.State, st.Term, st.ReadyTerm, st.Leader, st.LastIndex, st.Committed, r.Members())
			}
		}
	}
	return text + fmt.Sprintf("\nepoch %d inputs %d planned %d", s.Epoch, s.Inputs, s.Planned)
}
