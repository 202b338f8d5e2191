package access

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Machine is a namespace machine that knows when its state is being replaced by a
// leader's: a view opened meanwhile would show half of it. Give this one to the group.
type Machine struct {
	*namespace.Machine
	store *meta.Partition
	// swaps counts beginnings and ends of replacements: it is odd within one.
	swaps atomic.Uint64
}

var _ group.Imager = (*Machine)(nil)

// NewMachine makes the state machine of a partition.
func NewMachine(o namespace.Options) *Machine {
	return &Machine{Machine: namespace.New(o), store: o.Store}
}

// Restore is group.Imager's.
func (m *Machine) Restore(ctx context.Context, r io.Reader) error {
	if m.swaps.Load()%2 == 0 { // else an earlier one failed half way: it is not over yet
		m.swaps.Add(1)
	}
	if err := m.Machine.Restore(ctx, r); err != nil {
		return err
	}
	m.swaps.Add(1)
	return nil
}

// Local opens a view of what is here, perhaps old, never half of a state that is
// being replaced: KindUnavailable then.
func (m *Machine) Local() (*namespace.View, error) {
	swaps, ok := m.whole()
	if ok {
		v := m.View()
		if m.swaps.Load() == swaps {
			return v, nil
		}
		v.Close()
	}
	return nil, object.Errorf(object.KindUnavailable, "this replica is taking over its leader's state: try again")
}

// whole gives the state of swaps to compare with later; ok is false within a
// replacement.
func (m *Machine) whole() (swaps uint64, ok bool) {
	swaps = m.swaps.Load()
	return swaps, swaps%2 == 0
}

// Replica is this node's replica of a partition.
type Replica struct {
	ID      string // in the group
	Group   *group.Group
	Machine *Machine // the group's
}

// local is a replica that is attached.
type local struct {
	Replica
	ctx    context.Context // ends when it is detached
	cancel context.CancelFunc
	uses   sync.WaitGroup
}

// leads reports whether the replica leads, as far as it knows.
func (l *local) leads() bool {
	id, ok := l.Group.Leader()
	return ok && id == l.ID
}

// within is ctx, ended also after d, or when the replica is detached.
func (l *local) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// partition is what this node knows of one.
type partition struct {
	id    object.PartitionID
	index batcher
	// lagged is 1 + what the replica here had applied when a read waited for more in
	// vain: until it applies something, others need not wait for it too.
	lagged atomic.Uint64

	mu     sync.Mutex // guards what follows; a leaf
	here   *local
	places []Place
	mapped bool   // the map has the partition, though maybe no place
	leader string // the node that led last; "" unknown
}

func (pt *partition) attach(ctx context.Context, r Replica) error {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.here != nil {
		return object.Errorf(object.KindExists, "partition %d has a replica here already", pt.id)
	}
	pt.here = &local{Replica: r}
	pt.here.ctx, pt.here.cancel = context.WithCancel(ctx)
	return nil
}

func (pt *partition) detach() {
	pt.mu.Lock()
	l := pt.here
	pt.here = nil
	pt.mu.Unlock()
	if l != nil {
		l.cancel()
		l.uses.Wait()
	}
}

// use is the replica here, or nil; whoever gets one calls uses.Done.
func (pt *partition) use() *local {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.here != nil {
		pt.here.uses.Add(1)
	}
	return pt.here
}

func (pt *partition) exists() bool {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return pt.here != nil || len(pt.places) > 0
}

// onMap reports whether the map has the partition.
func (pt *partition) onMap() bool {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return pt.mapped
}

func (pt *partition) setPlaces(list []Place, mapped bool) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.places, pt.mapped = slices.Clone(list), mapped
}

// nodes are those with a replica, in order of preference.
func (pt *partition) nodes() []string {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	list := make([]string, len(pt.places))
	for i, at := range pt.places {
		list[i] = at.Node
	}
	return list
}

// nodeOf is where a replica lives; "" when the map does not say.
func (pt *partition) nodeOf(replica string) string {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	i := slices.IndexFunc(pt.places, func(at Place) bool { return at.Replica == replica })
	if i < 0 {
		return ""
	}
	return pt.places[i].Node
}

// led notes that a node leads.
func (pt *partition) led(node string) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.leader = node
}

// notLed forgets a leader that turned out not to be one.
func (pt *partition) notLed(node string) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.leader == node {
		pt.leader = ""
	}
}

// believed are the nodes that may lead, the likeliest first: whom the replica
// here follows, then who led last.
func (pt *partition) believed() (list []string) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.here != nil {
		if id, ok := pt.here.Group.Leader(); ok {
			for _, at := range pt.places {
				if at.Replica == id {
					list = append(list, at.Node)
				}
			}
		}
	}
	return append(list, pt.leader)
}

// leaderBut is the node that may lead, unless it is one of those; "": none is known.
func (pt *partition) leaderBut(not ...string) string {
	for _, node := range pt.believed() {
		if node != "" && !slices.Contains(not, node) {
			return node
		}
	}
	return ""
}
