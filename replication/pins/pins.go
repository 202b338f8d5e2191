// Package pins is who still needs what is to be reclaimed: a coordinator's memory
// of the versions that its readers pin and of the files that sessions hold open,
// and the question of a partition's leader to all of them before it reclaims.
//
// DESIGN.md beside this file has the protocol, and why it is right.
package pins

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The methods of calls between nodes.
const (
	MethodLease uint16 = 0x5001 // a coordinator asks leaders for leases
	MethodPins  uint16 = 0x5002 // a leader asks what a coordinator needs
)

// Options of a Table.
type Options struct {
	// Node is this node's id.
	Node string
	// Period is how long a lease and a hold last without a sign of life.
	Period time.Duration
	// Partitions is how many there are, partition 0 counted.
	Partitions int

	// Call asks a node, this one included, as transport.Node.Call does. Nil: this
	// node is alone, nothing is ever sent, and Leader and Leads are not used.
	Call func(ctx context.Context, node string, method uint16, request []byte) ([]byte, error)
	// Leader is the node that leads a partition, as far as this one knows.
	Leader func(object.PartitionID) (node string, ok bool)
	// Leads returns the term in which this node leads a partition, once it is
	// certain that no later leader had been elected when the call began.
	Leads func(context.Context, object.PartitionID) (term uint64, err error)

	// Clock counts from any moment, and never jumps; nil: Clock().
	Clock  func() time.Duration
	Logger *slog.Logger

	serial bool // one message after another, each once, for tests
}

func (o *Options) complete() error {
	switch {
	case o.Node == "" || o.Period <= 0 || o.Partitions < 1 || o.Partitions > object.MaxPartitions:
		return object.Errorf(object.KindInvalid, "pins need a node id, a lease period and 1 to %d partitions", object.MaxPartitions)
	case o.Call != nil && (o.Leader == nil || o.Leads == nil):
		return object.Errorf(object.KindInvalid, "pins of a cluster need to know who leads")
	}
	if o.Clock == nil {
		o.Clock = Clock()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("component", "pins")
	return nil
}

// Clock is a clock that goes on while the machine sleeps, which Go's own
// monotonic clock does not: a lease must not outlive its period by a nap.
func Clock() func() time.Duration {
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			panic("pins: CLOCK_BOOTTIME cannot be read: " + err.Error()) // in Linux since 2.6.39
		}
		return time.Duration(ts.Nano())
	}
}

// Table is one node's pins and holds of all partitions, and as a leader its
// view of the other nodes'. Safe for concurrent use.
type Table struct {
	o     Options
	start time.Duration // of this process, by its clock
	parts []*Partition
}

// New makes a Table. Serve lets others reach it, Run keeps its leases.
func New(o Options) (*Table, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	t := &Table{o: o, start: o.Clock()}
	for id := range o.Partitions {
		t.parts = append(t.parts, newPartition(t, object.PartitionID(id)))
	}
	return t, nil
}

// Partition is the part of one partition. It panics for one that is not there.
func (t *Table) Partition(id object.PartitionID) *Partition { return t.parts[id] }

func (t *Table) partition(id uint16) (*Partition, error) {
	if int(id) >= len(t.parts) {
		return nil, object.Errorf(object.KindInvalid, "there is no partition %d", id)
	}
	return t.parts[id], nil
}

// each calls fn for 0 to n-1, several at once, and waits for all.
func (t *Table) each(n int, fn func(i int)) {
	if n == 1 || t.o.serial {
		for i := range n {
			fn(i)
		}
		return
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error { fn(i); return nil })
	}
	_ = g.Wait() // fn tells no errors
}

func (t *Table) alone() bool { return t.o.Call == nil }

// Serve answers the calls of other nodes.
func (t *Table) Serve(n *transport.Node) {
	n.HandleCall(MethodLease, t.HandleLease)
	n.HandleCall(MethodPins, t.HandlePins)
}
