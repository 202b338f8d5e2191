package replication

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/access"
	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/recovery"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

const (
	// recoveryName is the file with the plan that is being carried out on a store; while
	// it is there, the node does not start.
	recoveryName = "RECOVERY.json"
	opRecovery   = vfs.Op("recovery.write")
)

// stopped is a node's metadata, opened by nobody else, without its groups.
type stopped struct {
	cfg     Config
	log     *slog.Logger
	store   *layout
	id      *steward.Identity
	records map[object.PartitionID]steward.Kept
	meta    *meta.DB
	wal     *wal.Log
}

// openStopped opens the metadata of a node of a cluster. KindBusy while the node runs.
func openStopped(cfg Config) (_ *stopped, err error) {
	if cfg.FS == nil {
		cfg.FS = vfs.OS()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &stopped{cfg: cfg, log: cfg.Logger}
	n := &Node{cfg: cfg}
	if err := n.checkFormats(); err != nil {
		return nil, err
	}
	if s.store, err = readLayout(cfg.FS, cfg.MetadataPath); err != nil {
		return nil, err
	}
	if s.id, err = steward.LoadIdentity(cfg.FS, cfg.MetadataPath); err != nil {
		return nil, err
	}
	if s.store == nil || s.id == nil || s.id.Founding {
		return nil, object.Errorf(object.KindInvalid, "%s is not the metadata path of a node that belongs to a cluster: give the one that the node was started with", cfg.MetadataPath)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.meta, err = meta.Open(meta.Options{FS: cfg.FS, Dir: n.metaPath(), MemTableBytes: cfg.memTable, Logger: s.log}); err != nil {
		return nil, err
	}
	if s.wal, err = wal.Open(wal.Options{FS: cfg.FS, Dir: n.logPath(), SegmentBytes: cfg.walSegment, Logger: s.log}); err != nil {
		return nil, err
	}
	s.records, err = steward.ReadRecords(cfg.FS, cfg.MetadataPath)
	return s, err
}

// close closes the metadata first, as a node that stops does: all of it is in tables then.
func (s *stopped) close() error {
	var errs []error
	if s.meta != nil {
		errs = append(errs, s.meta.Close())
	}
	if s.wal != nil {
		errs = append(errs, s.wal.Close())
	}
	return errors.Join(errs...)
}

// group is the configuration of a stopped replica. store is where its state is.
func (s *stopped) group(p object.PartitionID, replica string, store *meta.Partition, keys, bytes int) group.Config {
	return group.Config{
		ID: p, Node: replica, Log: s.wal.Group(p), FS: s.cfg.FS, Dir: filepath.Join(s.cfg.MetadataPath, replicasName), Logger: s.log,
		Machine: access.NewMachine(namespace.Options{Partition: p, Store: store, MaxKeys: keys, MaxBytes: bytes, Logger: s.log}),
	}
}

func (s *stopped) replica(p object.PartitionID, replica string) group.Config {
	keys, bytes := s.meta.MaxTxn()
	return s.group(p, replica, s.meta.Partition(p), keys, bytes)
}

func (s *stopped) name(p object.PartitionID) string {
	return control.ReplicaID{Node: s.id.Node, Generation: s.records[p].Generation}.String()
}

// Inspect tells what a stopped node has of its cluster, for a recovery; of cfg only
// MetadataPath, FS and Logger matter. It changes nothing that the node's next start would not. KindBusy:
// the node runs. KindInvalid: the directory is that of no node of a cluster.
func Inspect(ctx context.Context, cfg Config) (r *recovery.Report, err error) {
	s, err := openStopped(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.inspect(ctx)
}

func (s *stopped) inspect(ctx context.Context) (*recovery.Report, error) {
	r := &recovery.Report{Cluster: hex.EncodeToString(s.id.Cluster[:]), Node: s.id.Node, Store: hex.EncodeToString(s.id.Store[:]), Taken: time.Now().UTC()}
	for p := range object.PartitionID(s.store.Partitions + 1) {
		rec, known := s.records[p]
		if !known {
			continue
		}
		x := recovery.Replica{Partition: p, ID: s.name(p)}
		var err error
		if !rec.Live {
			x.Unusable = "its record says: " + rec.Life
		} else if x.Remains, err = group.Examine(s.replica(p, x.ID)); err != nil {
			x.Unusable = err.Error()
		}
		r.Replicas = append(r.Replicas, x)
		if p == object.Control && x.Unusable == "" {
			err := s.withTail(ctx, x.ID, func(v *namespace.View, _ *meta.Partition) error {
				st, err := v.Control()
				if err == nil {
					r.State = recovery.StateOf(st)
				}
				return err
			})
			if err != nil && !object.IsKind(err, object.KindNotFound) {
				return nil, err
			}
		}
	}
	return r, nil
}

// withTail shows the control group's state as it will be with the whole log applied, in
// memory: here it is applied only once it is known that this log goes on.
func (s *stopped) withTail(ctx context.Context, replica string, look func(*namespace.View, *meta.Partition) error) (err error) {
	db, err := meta.Open(meta.Options{InMemory: true, Logger: s.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	keys, bytes := db.MaxTxn()
	cfg := s.group(object.Control, replica, db.Partition(object.Control), keys, bytes)
	machine, stored := cfg.Machine.(*access.Machine), s.replica(object.Control, replica).Machine.(*access.Machine)
	if stored.Applied() > 0 {
		img, err := stored.Image()
		if err != nil {
			return err
		}
		if err := errors.Join(machine.Restore(ctx, img.Data), img.Data.Close()); err != nil {
			return err
		}
	}
	if err := group.Replay(ctx, cfg); err != nil {
		return err
	}
	v, err := machine.Local()
	if err != nil {
		return err
	}
	defer v.Close()
	return look(v, db.Partition(object.Control))
}

// Recover carries a plan out on a stopped node that is one of those left; of cfg only
// MetadataPath, FS and Logger matter. After an error or a crash it is called again, with the same plan, until it
// returns nil; meanwhile the node does not start. Errors: KindConflict: the node has run since the report that
// the plan was made of, or is in another recovery; KindInvalid: the plan is another node's or cluster's.
func Recover(ctx context.Context, cfg Config, plan *recovery.Plan) (err error) {
	s, err := openStopped(cfg)
	if err != nil {
		return err
	}
	defer func() {
		if s != nil {
			err = errors.Join(err, s.close())
		}
	}()
	to, err := plan.Cluster()
	if err != nil {
		return err
	}
	begun, err := readStart(s.cfg.FS, opLayoutRead, s.recoveryPath(), maxPlan)
	if err != nil {
		return err
	}
	if begun == nil && s.id.Cluster == to {
		return nil // done
	}
	if err := s.begin(ctx, plan, begun); err != nil {
		return err
	}
	if err := s.replay(ctx, plan); err != nil {
		return err
	}
	// What was applied is durable once the metadata has been closed.
	err, s = s.close(), nil
	if err != nil {
		return err
	}
	if s, err = openStopped(cfg); err != nil {
		return err
	}
	if err := s.renew(ctx, plan); err != nil {
		return err
	}
	return s.settle(plan, to)
}

// Recovering is the plan that was begun on a stopped node and has not come to its end; nil: none was.
func Recovering(cfg Config) (*recovery.Plan, error) {
	if cfg.FS == nil {
		cfg.FS = vfs.OS()
	}
	b, err := readStart(cfg.FS, opLayoutRead, filepath.Join(cfg.MetadataPath, recoveryName), maxPlan)
	if err != nil || b == nil {
		return nil, err
	}
	return recovery.DecodePlan(b)
}

// maxPlan bounds the plan that a store keeps, in bytes.
const maxPlan = 64 << 20

func (s *stopped) recoveryPath() string { return filepath.Join(s.cfg.MetadataPath, recoveryName) }

// begin makes sure that the plan was made for the store as it is, and keeps it there:
// from then on there is no way back.
func (s *stopped) begin(ctx context.Context, plan *recovery.Plan, begun []byte) error {
	mine := plan.Of(s.id.Node)
	if mine == nil {
		return object.Errorf(object.KindInvalid, "the plan does not know node %s: it was made without its report", s.id.Node)
	}
	b, err := plan.Encode()
	if err != nil {
		return err
	}
	if begun != nil {
		if old, err := recovery.DecodePlan(begun); err != nil || old.To != plan.To {
			return object.Errorf(object.KindConflict, "%s has begun another recovery (%s): finish that one first", s.cfg.MetadataPath, recoveryName)
		}
		return nil
	}
	now, err := s.inspect(ctx)
	if err != nil {
		return err
	}
	if now.Cluster != plan.From || now.Digest() != mine.Report {
		return object.Errorf(object.KindConflict, "node %s is not as its report says that the plan was made of: it has run since, or is of another cluster; take the reports again, with all nodes stopped", s.id.Node)
	}
	if err := s.rehearse(ctx, plan); err != nil {
		return err
	}
	return vfs.WriteBytes(s.cfg.FS, opRecovery, s.recoveryPath(), 0o600, b)
}

// rehearse makes sure that the control state takes the plan, where its log goes on.
func (s *stopped) rehearse(ctx context.Context, plan *recovery.Plan) error {
	c, err := plan.Command()
	if err != nil || plan.Partitions[object.Control].Node != s.id.Node {
		return err
	}
	return s.withTail(ctx, s.name(object.Control), func(_ *namespace.View, p *meta.Partition) error {
		txn := p.Begin()
		defer txn.Discard()
		r, err := control.Apply(txn, c)
		if err != nil {
			return err
		}
		return r.Err()
	})
}

// replay applies the logs that go on here to their states.
func (s *stopped) replay(ctx context.Context, plan *recovery.Plan) error {
	for i := range plan.Partitions {
		p := &plan.Partitions[i]
		if p.Node != s.id.Node || p.Founded {
			continue
		}
		if at, _, _ := s.wal.Group(p.Partition).Snapshot(); at >= p.Index {
			continue // it goes on already
		}
		if err := group.Replay(ctx, s.replica(p.Partition, p.Replica)); err != nil {
			return err
		}
	}
	return nil
}

// renew begins the groups anew whose log is here, and records the replicas that are new.
func (s *stopped) renew(ctx context.Context, plan *recovery.Plan) error {
	made := map[object.PartitionID]uint64{}
	for i := range plan.Partitions {
		p := &plan.Partitions[i]
		if p.Node != s.id.Node {
			if err := s.yield(p); err != nil {
				return err
			}
			continue
		}
		r := group.Renewal{Index: p.Index, Term: p.Term, Members: p.Members, Time: plan.Made}
		if p.Partition == object.Control {
			c, err := plan.Command()
			if err != nil {
				return err
			}
			data, err := c.Encode()
			if err != nil {
				return err
			}
			if r.Command, err = (&namespace.Command{Now: plan.Made.UnixNano(), Control: data}).Encode(); err != nil {
				return err
			}
		}
		var err error
		if cfg := s.replica(p.Partition, p.Replica); p.Founded {
			err = group.Found(ctx, cfg, r, s.meta.Partition(p.Partition).DropAll)
		} else {
			err = group.Renew(cfg, r)
		}
		if err != nil {
			return err
		}
		if id, err := control.ParseReplicaID(p.Replica); err == nil && p.Founded {
			made[p.Partition] = id.Generation
		}
	}
	return steward.KeepLive(s.cfg.FS, s.cfg.MetadataPath, made)
}

// yield has this node's replica of a partition wait for the one whose log goes on.
func (s *stopped) yield(p *recovery.Partition) error {
	if !s.records[p.Partition].Live {
		return nil
	}
	err := group.Yield(s.replica(p.Partition, s.name(p.Partition)), group.Member{ID: p.Replica, Address: string(p.Node)})
	if object.IsKind(err, object.KindCorrupt) {
		return nil // the report said so: it never votes again
	}
	return err
}

// settle makes the store one of the cluster that the plan makes, and lets the node start.
func (s *stopped) settle(plan *recovery.Plan, to control.ClusterID) error {
	if s.store.Cluster != "" { // it names the cluster that this node once founded
		s.store.Cluster = ""
		if err := writeLayout(s.cfg.FS, s.cfg.MetadataPath, s.store); err != nil {
			return err
		}
	}
	if id := s.id; id.Cluster != to {
		id.Former = append(id.Former, id.Cluster)
		id.Cluster, id.Peers = to, map[control.NodeID]string{}
		for _, n := range plan.Left {
			id.Peers[n.Node] = n.Peer
		}
		if err := id.Save(s.cfg.FS, s.cfg.MetadataPath); err != nil {
			return err
		}
	}
	err := s.cfg.FS.Remove(opRecovery, s.recoveryPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.cfg.FS.SyncDir(opRecovery, s.cfg.MetadataPath)
}

// recovering refuses to start a node in the middle of a recovery.
func (n *Node) recovering() error {
	_, err := n.cfg.FS.Stat(opLayoutRead, filepath.Join(n.cfg.MetadataPath, recoveryName))
	switch {
	case err == nil:
		return object.Errorf(object.KindBusy, "a recovery of %s has begun and not ended: finish it with `bucketdb cluster recover --metadata %s --force`", n.cfg.MetadataPath, n.cfg.MetadataPath)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}
