package control

import (
	"fmt"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Txn is what commands are applied to; a *meta.Txn of partition 0 is one.
type Txn interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
}

// Apply applies one command. It is deterministic: equal states and commands give
// equal states and results. The error is the store's, and then the Txn must be
// given up as a whole; what the command itself came to is in the Result. A
// command that fails changes nothing.
func Apply(txn Txn, c *Command) (*Result, error) {
	s := &change{txn: txn}
	r := s.apply(c)
	if s.err != nil {
		return nil, s.err
	}
	if r.Failed {
		return r, nil
	}
	if s.header != nil {
		if s.bumped {
			s.store(headerKey(), s.header)
		}
		r.Epoch, r.Cluster = s.header.Epoch, s.header.Cluster
	}
	return r, s.flush()
}

// change is the state while one command is applied. The first error of the store
// sticks; what is written waits until the command has succeeded.
type change struct {
	txn    Txn
	err    error
	header *Header
	bumped bool
	writes []write
}

type write struct{ key, value []byte } // value nil: delete

func (s *change) apply(c *Command) *Result {
	if c.Bootstrap != nil {
		return s.bootstrap(c.Bootstrap)
	}
	b, found := s.get(headerKey())
	if s.err != nil {
		return nil
	}
	if !found {
		return failf(object.KindNotFound, "there is no cluster here yet: bootstrap one first")
	}
	if s.header, s.err = decodeHeader(b); s.err != nil {
		return nil
	}
	switch {
	case c.Join != nil:
		return s.join(c.Join)
	case c.Update != nil:
		return s.update(c.Update)
	case c.Admit != nil:
		return s.admit(c.Admit)
	case c.Drain != nil:
		return s.drain(c.Drain)
	case c.Remove != nil:
		return s.remove(c.Remove)
	case c.SetWeight != nil:
		return s.setWeight(c.SetWeight)
	case c.SetZone != nil:
		return s.setZone(c.SetZone)
	case c.MarkGone != nil:
		return s.mark(c.MarkGone, true)
	case c.MarkBack != nil:
		return s.mark(c.MarkBack, false)
	case c.Configure != nil:
		return s.configure(c.Configure, c.Was)
	case c.Plan != nil:
		return s.plan(c.Plan)
	case c.Place != nil:
		return s.place(c.Place)
	case c.Step != nil:
		return s.step(c.Step)
	case c.Lost != nil:
		return s.lost(c.Lost)
	case c.AddWidth != nil:
		return s.addWidth(c.AddWidth)
	case c.Begin != nil:
		return s.begin(c.Begin)
	case c.Advance != nil:
		return s.advance(c.Advance)
	case c.Recover != nil:
		return s.recover(c.Recover)
	}
	return failf(object.KindVersion, "a command of the control group that this program does not know: upgrade this node")
}

func failf(k object.Kind, format string, args ...any) *Result {
	return &Result{Failed: true, Kind: k, Message: fmt.Sprintf(format, args...)}
}

func failed(err error) *Result {
	return &Result{Failed: true, Kind: object.KindOf(err), Message: err.Error()}
}

func done() *Result { return &Result{} }

// --- the store, with an error that sticks

func (s *change) get(key []byte) ([]byte, bool) {
	if s.err != nil {
		return nil, false
	}
	for i := len(s.writes) - 1; i >= 0; i-- {
		if w := s.writes[i]; string(w.key) == string(key) {
			return w.value, w.value != nil
		}
	}
	b, found, err := s.txn.Get(key)
	if s.err = err; err != nil {
		return nil, false
	}
	return b, found
}

func (s *change) store(key []byte, v any) {
	b, err := encode(v)
	s.put(key, b, err)
}

func (s *change) put(key, value []byte, err error) {
	if s.err == nil {
		s.err = err
	}
	s.writes = append(s.writes, write{key, value})
}

func (s *change) flush() error {
	for _, w := range s.writes {
		switch {
		case s.err != nil:
		case w.value == nil:
			s.err = s.txn.Delete(w.key)
		default:
			s.err = s.txn.Set(w.key, w.value)
		}
	}
	return s.err
}

// load decodes a record; nil when there is none.
func load[T any](s *change, key []byte, read func([]byte) (*T, error)) *T {
	b, found := s.get(key)
	if !found {
		return nil
	}
	v, err := read(b)
	if err != nil {
		s.err = err
		return nil
	}
	return v
}

func (s *change) node(id NodeID) *Node {
	return load(s, nodeKey(id), func(b []byte) (*Node, error) { return decodeNode(id, b) })
}

func (s *change) putNode(n *Node) { s.store(nodeKey(n.ID), n) }

// nodes lists all nodes, by id.
func (s *change) nodes() (list []*Node) {
	if s.err != nil {
		return nil
	}
	err := s.txn.Ascend([]byte{keyNode}, []byte{keyNode + 1}, func(k, v []byte) (bool, error) {
		n, err := decodeNode(NodeID(k[1:]), v)
		list = append(list, n)
		return true, err
	})
	if err != nil {
		s.err = err
		return nil
	}
	return list
}

func (s *change) partition(id object.PartitionID) *Partition {
	return load(s, partitionKey(id), func(b []byte) (*Partition, error) { return decodePartition(id, b) })
}

// putPartition stores a partition that changed, under a new epoch.
func (s *change) putPartition(p *Partition) {
	p.Since = s.bump()
	s.store(partitionKey(p.ID), p)
}

// partitions calls fn for every partition, the control group first, until it returns false.
func (s *change) partitions(fn func(*Partition) bool) {
	for id := range s.header.Partitions + 1 {
		p := s.partition(object.PartitionID(id))
		if s.err == nil && p == nil {
			s.err = damaged("map", "partition %d is missing", id)
		}
		if s.err != nil || !fn(p) {
			return
		}
	}
}

func (s *change) target() *Target { return mustLoad(s, targetKey(), "plan", decodeTarget) }

func (s *change) settings() *Settings {
	return mustLoad(s, settingsKey(), "settings", decodeSettings)
}

// mustLoad loads what every cluster has; after an error, an empty one that nobody looks at.
func mustLoad[T any](s *change, key []byte, what string, read func([]byte) (*T, error)) *T {
	v := load(s, key, read)
	if v == nil && s.err == nil {
		s.err = damaged(what, "it is missing")
	}
	return v
}

func (s *change) layout(width int) *Layout {
	if width < 1 || width > 255 {
		return nil
	}
	return load(s, layoutKey(width), decodeLayout)
}

func (s *change) putLayout(l *Layout) {
	b, err := l.encode()
	s.put(layoutKey(l.Width), b, err)
}

// layouts lists all layouts, by width.
func (s *change) layouts() (list []*Layout) {
	if s.err != nil {
		return nil
	}
	s.err = s.txn.Ascend([]byte{keyMap, mapLayout}, []byte{keyMap, mapLayout + 1}, func(_, v []byte) (bool, error) {
		l, err := decodeLayout(v)
		list = append(list, l)
		return true, err
	})
	return list
}

// bump is the epoch of this command's change.
func (s *change) bump() uint64 {
	if !s.bumped {
		s.bumped = true
		s.header.Epoch++
	}
	return s.header.Epoch
}

// replan notes that what plans depend on has changed.
func (s *change) replan() { s.header.Inputs = s.bump() }

// bootstrap makes the first state.
func (s *change) bootstrap(c *Bootstrap) *Result {
	if b, found := s.get(headerKey()); found || s.err != nil {
		return s.bootstrapped(c, b)
	}
	if bad := checkJoin(&c.Node); bad != nil {
		return bad
	}
	if err := c.Settings.Validate(); err != nil {
		return failed(err)
	}
	h := &Header{Cluster: c.Cluster, Epoch: 1, Inputs: 1, Partitions: c.Partitions, Groups: c.Groups}
	if b, err := encode(h); err != nil {
		return failed(err)
	} else if _, err := decodeHeader(b); err != nil {
		return failf(object.KindInvalid, "%d partitions and %d chunk groups are not possible: choose less", c.Partitions, c.Groups)
	}
	s.header, s.bumped = h, true
	n := newNode(&c.Node, 1)
	n.Life = NodeUp
	s.putNode(n)
	s.store(settingsKey(), c.Settings)
	first := []Replica{{ID: ReplicaID{Node: n.ID}, State: InForce}}
	for id := range c.Partitions + 1 {
		s.store(partitionKey(object.PartitionID(id)), Partition{Since: 1, Replicas: first})
	}
	b, err := soleTarget(n.ID, c.Partitions).encode()
	s.put(targetKey(), b, err)
	data, parity := object.DefaultScheme.Split() // whatever the partitions' RF is: see CLUSTER.md
	if l, err := soleLayout(n.ID, data+parity, c.Groups); err != nil {
		s.err = err
	} else {
		s.putLayout(l)
	}
	return &Result{Replica: &first[0].ID}
}

// bootstrapped answers a repeat.
func (s *change) bootstrapped(c *Bootstrap, header []byte) *Result {
	if s.err != nil {
		return nil
	}
	if s.header, s.err = decodeHeader(header); s.err != nil {
		return nil
	}
	if n := s.node(c.Node.Node); s.header.Cluster != c.Cluster || n == nil || n.Store != c.Node.Store {
		return failf(object.KindExists, "this is cluster %x already: join it instead of bootstrapping, or start on empty directories", s.header.Cluster)
	}
	return done()
}

// stale refuses what was judged on a state that has changed since.
func stale(what string, since, seen uint64) *Result {
	return failf(object.KindConflict, "%s changed at epoch %d, the command was made at %d: read the map again", what, since, seen)
}

// without drops the replica of an id from a list.
func without(list []Replica, id ReplicaID) []Replica {
	return slices.DeleteFunc(list, func(r Replica) bool { return r.ID == id })
}
