package replication

import (
	"context"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Settings are the cluster's: how many replicas, when a node is given up, how much
// moves at once.
type Settings = control.Settings

// maxWeight keeps sums of weights far from their bounds.
const maxWeight = 1_000_000

// steer has the control group carry out a command of a person, through whoever leads
// it, once: under the client's token, or one of this call's own. An entry of unknown outcome
// is proposed again, and a late copy of it must not bring back what was taken back since.
func (n *Node) steer(ctx context.Context, op string, c *control.Command) error {
	data, err := c.Encode()
	if err != nil {
		return object.WithOp(err, op, "", "")
	}
	if token(ctx) == nil {
		ctx = WithToken(ctx, Token{Session: newUploadID(), Seq: 1})
	}
	_, err = n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, object.Control, &namespace.Command{Token: token(ctx), Control: data})
	})
	if err != nil {
		return object.WithOp(n.whyNot0(err), op, "", "")
	}
	n.mapChanged()
	return nil
}

// Drain begins to move everything that a node has to others; the node goes on serving
// meanwhile, and as a coordinator after it. undo takes that back. It returns when the
// cluster has noted it, not when the node is empty: View shows that. What no other
// node can take stays. KindNotFound: no such node. KindPermission: it was removed.
// KindInvalid: it is the last node that takes data.
func (n *Node) Drain(ctx context.Context, node string, undo bool) error {
	if !undo {
		s, err := n.Control(ctx)
		if err != nil {
			return object.WithOp(err, "drain", "", "")
		}
		if !takers(s, control.NodeID(node)) && s.Node(control.NodeID(node)) != nil {
			return object.WithOp(object.Errorf(object.KindInvalid, "node %s is the last one that takes data, and nothing could go anywhere: start another node with -join first, or give one its weight back", node), "drain", "", "")
		}
	}
	return n.steer(ctx, "drain", &control.Command{Drain: &control.Drain{Node: control.NodeID(node), Undo: undo}})
}

// takers reports whether a node besides one takes data.
func takers(s *control.State, without control.NodeID) bool {
	for i := range s.Nodes {
		if c := &s.Nodes[i]; c.ID != without && c.State() == control.NodeUp && c.Weight > 0 {
			return true
		}
	}
	return false
}

// Remove ends a node's membership for ever: its store never comes back, its id may, with
// an empty one. KindBusy: it still has what the cluster needs; the message says what to
// wait for.
func (n *Node) Remove(ctx context.Context, node string) error {
	return n.steer(ctx, "remove", &control.Command{Remove: &control.Remove{Node: control.NodeID(node)}})
}

// SetWeight changes a node's share of the data, in proportion to the other nodes'
// weights; 100 is what a node begins with, 0 gives everything away.
func (n *Node) SetWeight(ctx context.Context, node string, weight uint32) error {
	if weight > maxWeight {
		return object.WithOp(object.Errorf(object.KindInvalid, "a weight of %d is too much: give 0 to %d", weight, maxWeight), "weight", "", "")
	}
	return n.steer(ctx, "weight", &control.Command{SetWeight: &control.SetWeight{Node: control.NodeID(node), Weight: weight}})
}

// SetZone names what fails together with a node; replicas of one partition keep to
// different zones where they can. "" is no zone.
func (n *Node) SetZone(ctx context.Context, node, zone string) error {
	return n.steer(ctx, "zone", &control.Command{SetZone: &control.SetZone{Node: control.NodeID(node), Zone: zone}})
}

// Settings are the cluster's, linearizable.
func (n *Node) Settings(ctx context.Context) (Settings, error) {
	s, err := n.Control(ctx)
	if err != nil {
		return Settings{}, object.WithOp(err, "settings", "", "")
	}
	return s.Settings, nil
}

// configureTries bounds the attempts of Configure among others that change settings.
const configureTries = 8

// Configure changes the cluster's settings and returns them as they are then. change
// gets the present ones, perhaps several times: two who change different settings
// at once both succeed. KindInvalid: the result is not possible.
func (n *Node) Configure(ctx context.Context, change func(*Settings)) (Settings, error) {
	for try := 0; ; try++ {
		old, err := n.Settings(ctx)
		if err != nil {
			return Settings{}, err
		}
		if try == 1 { // what the first entry came to is kept under the client's token
			ctx = withoutToken(ctx)
		}
		now := old
		change(&now)
		err = n.steer(ctx, "settings", &control.Command{Configure: &now, Was: &old})
		if err == nil {
			return now, nil
		}
		if !object.IsKind(err, object.KindConflict) || try >= configureTries {
			return Settings{}, err
		}
		if err := pause(ctx, try); err != nil {
			return Settings{}, object.WithOp(err, "settings", "", "")
		}
	}
}
