package replication

import (
	"context"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// chunkGroups is the number of chunk groups of a cluster, for ever: the grain in
// which chunks move between nodes.
const chunkGroups = 1024

// defaultWeight leaves room for nodes that take less than others.
const defaultWeight = 100

// protocol is the versions of the protocol between nodes that this program speaks.
const protocol = 1

// enroll tells the control group which process serves this store now, and where;
// the first time it makes the store a cluster of one. It comes before the first
// request: what belongs to no incarnation on record is given up.
//
// A crash before the entry leaves nothing, one after it a record of a process
// that never served; the next start says the same again.
func (n *Node) enroll(ctx context.Context) error {
	join, err := n.joining()
	if err != nil {
		return err
	}
	cluster, err := object.ParseUploadID(n.store.Cluster)
	if err != nil {
		return n.badLayout()
	}
	state, err := n.Control(ctx)
	switch {
	case object.IsKind(err, object.KindNotFound):
		return n.command(ctx, &control.Command{Bootstrap: &control.Bootstrap{Cluster: control.ClusterID(cluster), Node: join,
			Partitions: n.cfg.Partitions, Groups: chunkGroups, Settings: control.DefaultSettings()}})
	case err != nil:
		return err
	case state.Cluster != control.ClusterID(cluster):
		return object.Errorf(object.KindCorrupt, "%s says cluster %s, the control state %x: restore the metadata path as a whole from a backup", layoutName, n.store.Cluster, state.Cluster)
	}
	return n.command(ctx, &control.Command{Update: &control.UpdateNode{Node: join.Node, Store: join.Store, Incarnation: join.Incarnation,
		API: join.API, Peer: join.Peer, Versions: join.Versions}})
}

// joining is how this process presents itself.
func (n *Node) joining() (control.Join, error) {
	store, err := object.ParseUploadID(n.store.Store)
	if err != nil {
		return control.Join{}, n.badLayout()
	}
	return control.Join{Node: control.NodeID(n.cfg.NodeID), Store: control.StoreID(store), Incarnation: control.Incarnation(n.incarnation),
		API: n.cfg.API, Weight: defaultWeight, Versions: control.Versions{Min: protocol, Max: protocol}}, nil
}

func (n *Node) badLayout() error {
	return object.Errorf(object.KindCorrupt, "%s in %s names a store or cluster that is no id: restore it from a backup", layoutName, n.cfg.MetadataPath)
}

// command proposes a command to the control group. Such commands may be repeated.
func (n *Node) command(ctx context.Context, c *control.Command) error {
	data, err := c.Encode()
	if err != nil {
		return err
	}
	_, err = n.do(ctx, object.Control, &namespace.Command{Control: data})
	return err
}

// Control is the control state, linearizable. Do not modify it.
func (n *Node) Control(ctx context.Context) (state *control.State, err error) {
	err = n.inView(ctx, object.Control, func(v *namespace.View) error {
		state, err = v.Control()
		return err
	})
	return state, err
}
