package replication

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/access"
	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/pins"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// chunkGroups is the number of chunk groups of a cluster, for ever: the grain in
	// which chunks move between nodes.
	chunkGroups = 1024
	// defaultWeight leaves room for nodes that take less than others.
	defaultWeight = 100
)

// cluster is a node's part in its cluster, which may have no other node.
type cluster struct {
	net     *transport.Node
	book    *steward.Book
	access  *access.Partitions
	steward *steward.Steward
	state   atomic.Pointer[control.State] // the newest that was looked at here
	changed chan struct{}                 // a token: the control state here may be another

	// alone: no other node is known. why: a replica cannot be opened and nobody else
	// has what was in it, so it is no loss that others make good.
	alone       atomic.Bool
	whyMu       sync.Mutex
	why         error
	stopOpening context.CancelFunc
	mapping     sync.Mutex // held while a map is taken
}

// openCluster opens the replicas of this store and makes it known to its cluster;
// the first time it founds one, or joins one. It comes before the first request:
// what belongs to no incarnation on record is given up.
func (n *Node) openCluster(ctx context.Context) (err error) {
	n.changed = make(chan struct{}, 1)
	n.alone.Store(true)
	listener, err := n.bind(ctx)
	if err != nil {
		return err
	}
	if listener != nil {
		defer func() {
			if err != nil {
				_ = listener.Close() // twice where the transport has it already
			}
		}()
	}
	self, err := n.self()
	if err != nil {
		return err
	}
	n.book = steward.NewBook()
	if n.net, err = transport.Open(transport.Options{Node: n.cfg.NodeID, Advertise: n.peerAddress, Release: version(), Versions: n.cfg.versions, Secrets: n.secrets,
		Resolve: n.book.Resolve, Logger: n.log}); err != nil {
		return err
	}
	n.net.HandleHTTP(n.copies.Handler())
	n.pins.Serve(n.net)
	n.serveCalls()
	if n.access, err = access.New(access.Config{Self: n.cfg.NodeID, Transport: n.net, Check: n.admit, Logger: n.log}); err != nil {
		return err
	}
	if n.steward, err = steward.Open(steward.Config{Self: self, Secrets: n.secrets, Dir: n.cfg.MetadataPath, FS: n.cfg.FS,
		Seeds: n.cfg.Join, Host: host{n}, Transport: n.net, Book: n.book, Propose: n.propose0, State: n.controlState,
		Adopted: n.adopted, Copy: n.copyGroups, Verified: n.moves.list, Waiting: n.waits, Logger: n.log}); err != nil {
		return err
	}
	if err := n.seed(); err != nil {
		return err
	}
	ctx, n.stopOpening = context.WithCancel(ctx)
	defer n.stopOpening()
	n.goWork(n.mapKeeper)
	n.goWork(n.watchLog)
	if err := n.enter(ctx, listener); err != nil {
		n.whyMu.Lock()
		defer n.whyMu.Unlock()
		if n.why != nil {
			return n.why
		}
		return err
	}
	return nil
}

// enter founds or joins a cluster where the store is of none, and starts.
func (n *Node) enter(ctx context.Context, listener net.Listener) error {
	if listener != nil {
		if err := n.net.Serve(listener); err != nil {
			return err
		}
	}
	switch {
	case n.steward.Joined():
		if err := n.checkRecords(); err != nil {
			return err
		}
	case len(n.cfg.Join) > 0:
		if err := n.steward.Join(ctx, n.cfg.Join); err != nil {
			return err
		}
		if err := n.seed(); err != nil {
			return err
		}
	default:
		id, err := object.ParseUploadID(n.store.Cluster)
		if err != nil {
			return n.badLayout()
		}
		settings := control.DefaultSettings()
		if n.cfg.ReplicationFactor != 0 {
			settings.RF = n.cfg.ReplicationFactor
		}
		if err := n.steward.Bootstrap(ctx, control.Bootstrap{Cluster: control.ClusterID(id), Partitions: n.cfg.Partitions, Groups: n.cfg.groups, Settings: settings}); err != nil {
			return err
		}
	}
	n.waits("it opens its replicas and tells the cluster that it has started", nil)
	if err := n.steward.Start(ctx); err != nil {
		return err
	}
	if err := n.settleIn(ctx); err != nil {
		return err
	}
	return n.openPlaces(ctx)
}

// openPlaces waits until this node has adopted the newest map that there was at some
// time after its start. So an epoch that it said it has adopted stays adopted when it
// crashes, though what it has of the control state may go back: what was adopted
// was committed, and is in what is read here.
func (n *Node) openPlaces(ctx context.Context) error {
	for round := 0; ; round++ {
		s, err := n.Control(ctx)
		if err == nil {
			err = n.newer(ctx, s.Epoch)
		}
		if err == nil {
			n.places.shut.Store(false)
			n.steward.Wake()
			return nil
		}
		if passing(err) {
			n.waits(waitsForMajority, err)
		}
		if why := pause(ctx, round); why != nil || !passing(err) {
			return err
		}
	}
}

// checkRecords refuses to wait for others where there are none: the only node of a
// cluster without its replica records would ask for ever who it is.
func (n *Node) checkRecords() error {
	if !n.alone.Load() {
		return nil
	}
	_, err := n.cfg.FS.Stat(opLayoutRead, filepath.Join(n.cfg.MetadataPath, steward.RecordsName))
	if errors.Is(err, fs.ErrNotExist) {
		return object.Errorf(object.KindCorrupt, "%s has lost its file %s: restore it from a backup, or remove %s as well and start again; this node is the only one of its cluster, and nothing is lost by that",
			n.cfg.MetadataPath, steward.RecordsName, steward.IdentityName)
	}
	return err
}

// settleIn waits until this node has the map, and, of partitions that have no other
// replica, until they answer.
func (n *Node) settleIn(ctx context.Context) error {
	tick := time.NewTicker(mapPoll)
	defer tick.Stop()
	for n.takeMap(); n.state.Load() == nil; n.takeMap() {
		n.waits("it has not received the cluster's map yet: check that the other nodes run and reach it at "+n.peerAddress, nil)
		select {
		case <-ctx.Done():
			return object.Errorf(object.KindUnavailable, "this node has not received the cluster's map yet: check that the other nodes run and reach it at %s: %w", n.peerAddress, ctx.Err())
		case <-tick.C:
		}
	}
	if p := n.state.Load().Header.Partitions; p != n.cfg.Partitions {
		return object.Errorf(object.KindInvalid, "the cluster has %d partitions, not %d: start this node on empty directories with -partitions %d", p, n.cfg.Partitions, p)
	}
	for _, p := range n.parts {
		r := p.here.Load()
		if r == nil || len(r.group.Members()) != 1 { // none: it is joining, and waits for its leader
			continue
		}
		n.waits(fmt.Sprintf("partition %d applies its log", p.id), nil)
		if err := r.group.WaitReady(ctx); err != nil && p.here.Load() == r { // else the cluster has taken it back meanwhile
			return object.Errorf(object.KindUnavailable, "partition %d did not become ready: %w", p.id, err)
		}
	}
	return nil
}

// leaveCluster ends what openCluster began.
func (n *Node) leaveCluster() error {
	var errs []error
	if n.steward != nil { // first: its rounds ask through access, and closing a replica detaches it
		errs = append(errs, n.steward.Close())
	}
	if n.access != nil {
		n.access.Close()
	}
	if n.net != nil {
		errs = append(errs, n.net.Close())
	}
	return errors.Join(errs...)
}

// self is how this process presents itself.
func (n *Node) self() (control.Join, error) {
	store, err := object.ParseUploadID(n.store.Store)
	if err != nil {
		return control.Join{}, n.badLayout()
	}
	return control.Join{Node: control.NodeID(n.cfg.NodeID), Store: control.StoreID(store), Incarnation: control.Incarnation(n.incarnation),
		API: n.apiAddress(), Peer: n.peerAddress, Weight: defaultWeight, Versions: control.Versions{Min: n.cfg.versions[0], Max: n.cfg.versions[1]},
		Partitions: n.cfg.Partitions}, nil
}

// apiAddress is where clients reach this node: one that listens at all addresses is at
// the host where other nodes reach it.
func (n *Node) apiAddress() string {
	host, port, err := net.SplitHostPort(n.cfg.API)
	at, _, atErr := net.SplitHostPort(n.peerAddress)
	if ip := net.ParseIP(host); err != nil || atErr != nil || host != "" && (ip == nil || !ip.IsUnspecified()) {
		return n.cfg.API
	}
	return net.JoinHostPort(at, port)
}

func (n *Node) badLayout() error {
	return object.Errorf(object.KindCorrupt, "%s in %s names a store or cluster that is no id: restore it from a backup", layoutName, n.cfg.MetadataPath)
}

// openPins makes the table of what readers and open files need. A node that opens
// no port is alone for good, and asks nobody.
func (n *Node) openPins() (err error) {
	o := pins.Options{Node: n.cfg.NodeID, Period: n.cfg.LeasePeriod, Partitions: n.cfg.Partitions + 1, Logger: n.log}
	if n.cfg.Peer != "" {
		o.Call, o.Leader, o.Leads = n.callPins, func(id object.PartitionID) (string, bool) { return n.access.Leader(id) }, n.leadsIn
	}
	n.pins, err = pins.New(o)
	return err
}

// callPins asks a node, which may be this one.
func (n *Node) callPins(ctx context.Context, node string, method uint16, request []byte) ([]byte, error) {
	switch {
	case node != n.cfg.NodeID:
		return n.net.Call(ctx, node, method, request)
	case method == pins.MethodLease:
		return n.pins.HandleLease(ctx, transport.Peer{Node: node}, request)
	}
	return n.pins.HandlePins(ctx, transport.Peer{Node: node}, request)
}

// leased tries what needs a lease of a partition until it succeeds: who leads may have
// changed unnoticed, and nobody may lead for a moment.
func (n *Node) leased(ctx context.Context, p *partition, try func() error) error {
	err := try()
	for until := time.Now().Add(time.Duration(n.patience.Load())); object.IsKind(err, object.KindUnavailable) && n.cfg.Peer != "" && ctx.Err() == nil && time.Now().Before(until); {
		if why := n.access.FindLeader(ctx, p.id); why != nil {
			if err := pause(ctx, 6); err != nil {
				return err
			}
		}
		err = try()
	}
	return err
}

// leadsIn is pins.Options.Leads.
func (n *Node) leadsIn(ctx context.Context, id object.PartitionID) (term uint64, err error) {
	p, err := n.partition(id)
	if err != nil {
		return 0, err
	}
	r := p.led()
	if r == nil {
		return 0, object.Errorf(object.KindUnavailable, "node %s does not lead partition %d", n.cfg.NodeID, id)
	}
	term = r.group.Stats().ReadyTerm
	if err := r.group.Read(ctx); err != nil {
		return 0, err
	}
	if term == 0 || r.group.Stats().ReadyTerm != term || !r.group.IsLeader() {
		return 0, object.Errorf(object.KindUnavailable, "the leadership of partition %d changes: try again", id)
	}
	return term, nil
}

// seed tells access where the control group may be, from what was kept at the last
// start or told by who let this node join, until there is a map.
func (n *Node) seed() error {
	id, err := steward.LoadIdentity(n.cfg.FS, n.cfg.MetadataPath)
	if err != nil || id == nil {
		return err
	}
	var others []access.Place
	for node := range id.Peers {
		if string(node) != n.cfg.NodeID {
			others = append(others, access.Place{Node: string(node), Replica: string(node)})
		}
	}
	if len(others) > 0 {
		n.alone.Store(false)
		n.access.Update(0, map[object.PartitionID][]access.Place{object.Control: others})
	}
	return nil
}

// propose0 is steward.Config.Propose.
func (n *Node) propose0(ctx context.Context, c *control.Command) (*control.Result, error) {
	data, err := c.Encode()
	if err != nil {
		return nil, err
	}
	r, err := n.propose(ctx, object.Control, &namespace.Command{Control: data})
	switch {
	case err != nil:
		return nil, n.whyNot0(err)
	case r.Control == nil: // refused before it came to the control state
		return nil, r.Err()
	}
	return r.Control, nil
}

// whyNot0 is the error of an entry for the control group, or why its replica here has failed.
func (n *Node) whyNot0(err error) error {
	if here := n.parts[object.Control].here.Load(); here != nil && here.group.Failure() != nil {
		return n.failed0(here.group.Failure())
	}
	return err
}

// controlState is steward.Config.State.
func (n *Node) controlState(ctx context.Context, linearizable bool) (*control.State, error) {
	if linearizable {
		return n.Control(ctx)
	}
	r := n.parts[object.Control].here.Load()
	if r == nil {
		return nil, object.Errorf(object.KindNotFound, "this node has no replica of the control group yet")
	}
	v, err := r.machine.Local()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return v.Control()
}

// Control is the control state, linearizable. Do not modify it.
func (n *Node) Control(ctx context.Context) (state *control.State, err error) {
	err = n.inView(ctx, object.Control, func(v *namespace.View) error {
		state, err = v.Control()
		return err
	})
	return state, err
}

// mapChanged has the map looked at again. It never blocks.
func (n *Node) mapChanged() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// mapKeeper follows the control state.
func (n *Node) mapKeeper() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.changed:
			n.takeMap()
			n.steward.Wake()
		}
	}
}

// takeMap tells everybody here where replicas are, by the control state that this node has.
func (n *Node) takeMap() {
	n.mapping.Lock()
	defer n.mapping.Unlock()
	s, err := n.controlState(n.ctx, false)
	if err != nil {
		if !object.IsKind(err, object.KindNotFound) && !object.IsKind(err, object.KindUnavailable) {
			n.logged("the cluster's map", err)
		}
		return
	}
	if old := n.state.Load(); old != nil && old.Epoch > s.Epoch {
		return // a replica that is being filled anew
	}
	table := make(map[object.PartitionID][]access.Place, len(s.Partitions))
	for i := range s.Partitions {
		id := object.PartitionID(i)
		table[id] = nil // on the map, even if none of its replicas can be used
		for _, r := range s.Replicas(id) {
			if !r.Lost && r.State != control.Joining && r.State != control.Removed {
				table[id] = append(table[id], access.Place{Node: string(r.ID.Node), Replica: r.ID.String()})
			}
		}
	}
	n.alone.Store(len(s.Nodes) == 1)
	n.adoptLayouts(n.state.Load(), s)
	n.access.Update(s.Epoch, table)
	n.setRates(s)
	n.state.Store(s)
	nudge(n.hub.news) // replicas may have come or gone
}
