package replication

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The leadership of a partition, moved by a person. The coordinator judges the wish by the
// control state and asks who leads; that node tells the other one to keep what it gets, has
// raft hand it on, and waits until the other one says that it leads. Each step may be repeated.

const (
	// DefaultKeepLead is how long a leadership stays where a person moved it before it
	// goes back to the preferred replica, and MaxKeepLead the longest that can be asked for.
	DefaultKeepLead = 10 * time.Minute
	MaxKeepLead     = 24 * time.Hour
	// handFor bounds one attempt, leadFor a question to the node that is to lead.
	handFor = 5 * time.Second
	leadFor = time.Second
	// maxBehind is how many entries a replica may lack: while the leadership is handed on
	// nothing is written, until it has all of them.
	maxBehind = 1024
)

// transfer asks who leads a partition to hand that on.
type transfer struct {
	Partition object.PartitionID `cbor:"1,keyasint"`
	To        string             `cbor:"2,keyasint,omitempty"` // a node; "": any other
	Keep      time.Duration      `cbor:"3,keyasint"`
}

// leadAsk asks a node to keep a partition's leadership once it has it, and leadAnswer
// tells whether it has.
type (
	leadAsk struct {
		Partition object.PartitionID `cbor:"1,keyasint"`
		Keep      time.Duration      `cbor:"2,keyasint"` // 0: no longer than anybody's
	}
	leadAnswer struct {
		Leads bool `cbor:"1,keyasint"`
	}
)

// TransferLeadership has the replica at node to lead a partition, the control group (0)
// included; "" is whichever other replica is furthest. It stays there for keep (0:
// DefaultKeepLead) at least, unless that node restarts or loses it, and then goes back to the
// preferred replica. Returned is who leads then. A repeat is harmless, but with "" it moves
// the leadership again.
//
// KindNotFound: no such partition or node. KindInvalid: no replica is there that can
// lead. KindBusy: the node is drained, gone, silent or far behind. KindUnavailable: it did
// not come to pass in time, and whether it still does is seen in View.
func (n *Node) TransferLeadership(ctx context.Context, partition object.PartitionID, to string, keep time.Duration) (leader string, err error) {
	if keep == 0 {
		keep = DefaultKeepLead
	}
	if leader, err = n.transferLeadership(ctx, transfer{partition, to, keep}); err != nil {
		return "", object.WithOp(err, "transfer leadership", "", "")
	}
	return leader, nil
}

func (n *Node) transferLeadership(ctx context.Context, t transfer) (leader string, err error) {
	if t.Keep < 0 || t.Keep > MaxKeepLead {
		return "", object.Errorf(object.KindInvalid, "a leadership cannot be kept for %s: give a time of up to %s", t.Keep, MaxKeepLead)
	}
	s, err := n.Control(ctx)
	if err != nil {
		return "", err
	}
	if err := mayLead(s, t.Partition, t.To); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.patience.Load()))
	defer cancel()
	asked := "" // who led when it was first asked
	for round := 0; ; round++ {
		if leader, err = n.handOnce(ctx, t, &asked); !passing(err) {
			return leader, err
		}
		if why := pause(ctx, round); why != nil {
			return "", err
		}
	}
}

// mayLead refuses a wish that the control state says cannot be.
func mayLead(s *control.State, p object.PartitionID, to string) error {
	if int(p) >= len(s.Partitions) {
		return object.Errorf(object.KindNotFound, "there is no partition %d: they are 0 (the control group) to %d", p, len(s.Partitions)-1)
	}
	var at []string
	for _, r := range s.Partitions[p].Replicas {
		if c := s.Node(r.ID.Node); r.State == control.InForce && !r.Lost && c != nil && c.State() == control.NodeUp {
			at = append(at, string(r.ID.Node))
		}
	}
	switch c := s.Node(control.NodeID(to)); {
	case to == "" && len(at) < 2:
		return object.Errorf(object.KindInvalid, "partition %d has no other replica that could lead it: see \"bucketdb cluster partitions\"", p)
	case to == "" || slices.Contains(at, to):
		return nil
	case c == nil || c.Life == control.NodeRemoved:
		return object.Errorf(object.KindNotFound, "the cluster has no node %q: see \"bucketdb cluster nodes\"", to)
	case c.State() != control.NodeUp:
		return object.Errorf(object.KindBusy, "node %s is %s and takes no leadership: choose another of %s", to, c.State(), orNone(at))
	default:
		return object.Errorf(object.KindInvalid, "node %s has no replica of partition %d that is in force: choose one of %s", to, p, orNone(at))
	}
}

func orNone(nodes []string) string {
	if len(nodes) == 0 {
		return "those that come up again"
	}
	return strings.Join(nodes, ", ")
}

// handOnce asks who leads, as far as this node knows, once. asked is who led when that was first
// done: where another leads by then and no name was given, the wish has come true, and is not
// carried back.
func (n *Node) handOnce(ctx context.Context, t transfer, asked *string) (leader string, err error) {
	if err := n.access.FindLeader(ctx, t.Partition); err != nil {
		return "", err
	}
	at, ok := n.access.Leader(t.Partition)
	if !ok {
		return "", object.Errorf(object.KindUnavailable, "partition %d has no leader now: try again", t.Partition)
	}
	if *asked == "" {
		*asked = at
	} else if t.To == "" && at != *asked {
		t.To = at
	}
	ctx, cancel := context.WithTimeout(ctx, 2*handFor)
	defer cancel()
	if at == n.cfg.NodeID {
		return n.hand(ctx, t)
	}
	b, err := cbor.Marshal(t)
	if err != nil {
		return "", err
	}
	if b, err = n.net.Call(ctx, at, methodHand, b); err != nil {
		return "", err
	}
	return string(b), nil
}

// serveHand answers methodHand.
func (n *Node) serveHand(ctx context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	var t transfer
	if err := cbor.Unmarshal(request, &t); err != nil || t.Keep < 0 || t.Keep > MaxKeepLead {
		return nil, object.Errorf(object.KindInvalid, "a wish for another leader that makes no sense: %v", err)
	}
	leader, err := n.hand(ctx, t)
	return []byte(leader), err
}

// hand hands the leadership of a partition on, which this node leads, and returns who leads then.
func (n *Node) hand(ctx context.Context, t transfer) (leader string, err error) {
	p, err := n.partition(t.Partition)
	if err != nil {
		return "", err
	}
	r := p.led()
	switch {
	case r == nil:
		return "", object.Errorf(object.KindUnavailable, "node %s does not lead partition %d any more: try again", n.cfg.NodeID, t.Partition)
	case t.To == n.cfg.NodeID:
		n.steward.KeepLead(t.Partition, t.Keep)
		return t.To, nil
	}
	ctx, cancel := context.WithTimeout(ctx, handFor)
	defer cancel()
	to, err := nextLeader(ctx, r, t.To)
	if err != nil {
		return "", err
	}
	node := string(to.Node)
	ask := func(keep time.Duration) (leads bool, err error) {
		return n.askLead(ctx, node, leadAsk{t.Partition, keep})
	}
	if _, err := ask(t.Keep); err != nil {
		return "", object.Errorf(object.KindBusy, "node %s does not answer, so partition %d stays at %s: see \"bucketdb cluster nodes\", or choose another: %w", node, t.Partition, n.cfg.NodeID, err)
	}
	if err := r.group.TransferLeadership(ctx, to.String()); err != nil {
		_, _ = ask(0) // if it cannot be told, it keeps for a while what it may get another way
		return "", err
	}
	n.steward.KeepLead(t.Partition, 0)
	for round := 0; ; round++ {
		leads, err := ask(t.Keep)
		if leads {
			return node, nil
		}
		if why := pause(ctx, round); why != nil {
			return "", object.Errorf(object.KindUnavailable, "partition %d was handed to node %s, which has not said yet that it leads: see \"bucketdb cluster partitions\", then try again: %w", t.Partition, node, errorOr(err, why))
		}
	}
}

func errorOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// nextLeader is the replica at a node, or of all others the one that lacks least, if it
// can take over at once. A leader that is new waits for the others' first answers.
func nextLeader(ctx context.Context, r *replica, node string) (id control.ReplicaID, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*leadFor)
	defer cancel()
	for round := 0; ; round++ {
		if id, err = bestToLead(r, node); err == nil || pause(ctx, round) != nil {
			return id, err
		}
	}
}

func bestToLead(r *replica, node string) (best control.ReplicaID, err error) {
	found, least := false, uint64(0)
	for _, m := range r.group.Members() {
		id, err := control.ParseReplicaID(m.ID)
		if err != nil || !m.Voter || id == r.id || node != "" && string(id.Node) != node {
			continue
		}
		if lacks, ok := r.group.Behind(m.ID); ok && (!found || lacks < least) {
			best, least, found = id, lacks, true
		}
	}
	switch {
	case !found && node != "":
		return best, object.Errorf(object.KindBusy, "node %s has not answered the leader of partition %d of late, or has no vote there: see \"bucketdb cluster nodes\", or choose another", node, r.group.ID())
	case !found:
		return best, object.Errorf(object.KindBusy, "no other replica of partition %d has answered its leader of late: see \"bucketdb cluster nodes\"", r.group.ID())
	case least > maxBehind:
		return best, object.Errorf(object.KindBusy, "node %s lacks %d entries of partition %d, and nothing could be written until it had them: try again when it has caught up", best.Node, least, r.group.ID())
	}
	return best, nil
}

// askLead asks a node to keep a leadership, and whether it has it.
func (n *Node) askLead(ctx context.Context, node string, ask leadAsk) (leads bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, leadFor)
	defer cancel()
	b, err := cbor.Marshal(ask)
	if err != nil {
		return false, err
	}
	if b, err = n.net.Call(ctx, node, methodLead, b); err != nil {
		return false, err
	}
	var a leadAnswer
	err = cbor.Unmarshal(b, &a)
	return a.Leads && err == nil, err
}

// serveLead answers methodLead.
func (n *Node) serveLead(_ context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	var ask leadAsk
	if err := cbor.Unmarshal(request, &ask); err != nil || ask.Keep < 0 || ask.Keep > MaxKeepLead {
		return nil, object.Errorf(object.KindInvalid, "a question about a leadership that makes no sense: %v", err)
	}
	p, err := n.partition(ask.Partition)
	if err != nil {
		return nil, err
	}
	n.steward.KeepLead(ask.Partition, ask.Keep)
	return cbor.Marshal(leadAnswer{Leads: p.led() != nil})
}
