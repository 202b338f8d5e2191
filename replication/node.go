package replication

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/pins"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
	"golang.org/x/sync/singleflight"
)

// Defaults of a Config.
const (
	DefaultPartitions    = 64
	DefaultChunkSize     = 4 << 20
	DefaultMaxObjectSize = 5 << 30
	DefaultLeasePeriod   = 30 * time.Second
	DefaultBufferMemory  = 96 << 20
	// DefaultMetadataReserve is room for Badger's memtables, whose files are
	// mapped sparsely: a full disk would end the process, not fail a write.
	DefaultMetadataReserve = 512 << 20
	DefaultRepairRate      = 64 << 20
	// MaxReplicationFactor is the largest of a cluster.
	MaxReplicationFactor = placement.MaxReplicas
)

// Config of a Node. Zero fields take the defaults.
type Config struct {
	NodeID    string   // default "node1"
	API       string   // where clients reach this node, host:port; "" nowhere
	Peer      string   // where this node listens for others, host:port; "": nowhere, it stays alone
	Advertise string   // where others reach this node, a host or host:port; "": at Peer, or at this machine's only address
	Join      []string // a new store joins the cluster of one of these, host:port; none: it is a cluster of its own
	// Secret of the cluster, one a line while they are changed, the current one first;
	// or SecretFile, which is followed. Both "": what the store keeps, or a new one.
	Secret, SecretFile string
	// ReplicationFactor is that of a cluster that this node founds; 0: 3. It is a setting of the cluster afterwards.
	ReplicationFactor int
	MetadataPath      string   // Badger, the WAL, secrets
	StoragePaths      []string // one directory a disk, for chunks
	Partitions        int      // data partitions; fixed when the store is made
	ChunkSize         int64    // bytes
	MaxObjectSize     int64    // bytes of one body
	Compression       string   // "none", "snappy", "zstd"
	// LeasePeriod is how long what a reader or an open file needs is kept
	// without a sign of life, and how long a new leader reclaims nothing.
	LeasePeriod time.Duration
	// BufferMemory bounds the memory of bodies in flight, in bytes.
	BufferMemory int64
	// MetadataReserve is the free space, in bytes, on the disk of MetadataPath
	// below which nothing is taken that grows; deleting goes on. Negative: none.
	MetadataReserve int64
	// RepairRate bounds, in bytes a second, what this node fetches to mend chunks, and as
	// much again to take over those that move to it, unless the cluster's settings do.
	RepairRate int64
	// Waiting is told what Open waits for, in words for people, whenever that changes; it must not
	// block, and may be called from several goroutines. nil: nobody asks.
	Waiting func(what string)
	FS      vfs.FS // default vfs.OS()
	Logger  *slog.Logger

	// walSegment is the length of a log segment; in tests, to have many. memTable is
	// the size of the metadata's memtables: large ones take the race detector long.
	walSegment, memTable int64
	movePage             int // pageChunks; in tests, to have many pages
	// rewriteRate bounds the rewriting of data whose bucket's scheme changed, in bytes a second.
	rewriteRate int64
	// clock, in tests, is this node's, which may be wrong.
	clock func() time.Time
	// opened, in tests, gets each replica that was opened.
	opened func(*replica)
	// net is how chunks get to other nodes; nil: there are none.
	net *chunkNet
	// groups is the number of chunk groups, in tests less than chunkGroups.
	groups int
	// versions of the protocol between nodes, in tests others than this program's.
	versions [2]uint64
}

func (c *Config) complete() error {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.ChunkSize, DefaultChunkSize)
	def(&c.MaxObjectSize, DefaultMaxObjectSize)
	def(&c.BufferMemory, DefaultBufferMemory)
	def(&c.MetadataReserve, DefaultMetadataReserve)
	def(&c.RepairRate, DefaultRepairRate)
	if c.versions == [2]uint64{} {
		c.versions = [2]uint64{transport.MinVersion, transport.MaxVersion}
	}
	if c.groups == 0 {
		c.groups = chunkGroups
	}
	def(&c.rewriteRate, rewriteRate)
	if c.Partitions == 0 {
		c.Partitions = DefaultPartitions
	}
	if c.NodeID == "" {
		c.NodeID = "node1"
	}
	if c.LeasePeriod == 0 {
		c.LeasePeriod = DefaultLeasePeriod
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if id, err := control.ParseReplicaID(c.NodeID); err != nil || id.Generation != 0 {
		return object.Errorf(object.KindInvalid, "NodeID is %q: give 1 to 64 of A-Z a-z 0-9 . _ -", c.NodeID)
	}
	switch {
	case c.MetadataPath == "":
		return object.Errorf(object.KindInvalid, "MetadataPath is empty: give a directory for the metadata")
	case len(c.StoragePaths) == 0:
		return object.Errorf(object.KindInvalid, "StoragePaths is empty: give at least one directory for the data")
	case c.Partitions < 1 || c.Partitions >= object.MaxPartitions:
		return object.Errorf(object.KindInvalid, "Partitions is %d: give 1 to %d", c.Partitions, object.MaxPartitions-1)
	case c.ChunkSize < 64<<10 || c.ChunkSize > 64<<20:
		return object.Errorf(object.KindInvalid, "ChunkSize is %d: give 64 KiB to 64 MiB", c.ChunkSize)
	case c.RepairRate < 1<<10:
		return object.Errorf(object.KindInvalid, "RepairRate is %d: give at least 1024 bytes a second, or damage is mended too late", c.RepairRate)
	case c.ReplicationFactor < 0 || c.ReplicationFactor > placement.MaxReplicas:
		return object.Errorf(object.KindInvalid, "ReplicationFactor is %d: give 1 to %d", c.ReplicationFactor, placement.MaxReplicas)
	case c.Peer == "" && len(c.Join) > 0:
		return object.Errorf(object.KindInvalid, "a node that joins others must be reached by them: give the address of its port for other nodes (-http)")
	case c.BufferMemory < 2*c.ChunkSize:
		return object.Errorf(object.KindInvalid, "BufferMemory is %d: give at least two chunks (%d)", c.BufferMemory, 2*c.ChunkSize)
	}
	return nil
}

// Node is one storage node. It is safe for concurrent use.
type Node struct {
	cfg         Config
	log         *slog.Logger
	started     time.Time
	incarnation object.UploadID // of this process: owns what it stages

	wal    *wal.Log
	meta   *meta.DB
	chunks *chunk.Store  // of this node's disks: what every request reads and writes goes through copies
	copies *copies.Store // chunks at all their holders
	places *places       // where those are
	moves  moves         // chunks on their way here, and away
	cluster
	// damaged are chunks here that went to quarantine, for the mender.
	damaged chan object.ChunkID
	suspect chan struct{} // a token: the chunks' disk is to be read through soon
	parts   []*partition  // by PartitionID; 0 is the control group
	pins    *pins.Table
	hub     *hub
	bufs    *buffers

	locks []io.Closer // of the storage paths
	store layout      // what the metadata path says of itself
	// secrets are the cluster's, the current one first; none: all of it is on loopback.
	secrets     []transport.Secret
	joinToken   string // the secret if this start made it
	peerAddress string // where other nodes reach this one

	asking    singleflight.Group // of the disks
	live      liveTxs
	scatter   scatter
	leftovers leftovers
	patience  atomic.Int64 // proposeTimeout, but for tests
	// compacting holds a token for each file that is being compacted.
	compacting chan struct{}
	active     activeUploads
	rename     chan struct{} // holds a token while this node renames a directory

	ctx    context.Context // ends when the node closes
	cancel context.CancelFunc
	work   sync.WaitGroup
	// opening are groups that are being opened, some of them given up.
	opening sync.WaitGroup
	// step, in tests, is asked before each entry, which is the partition's: an error is a
	// coordinator that vanished.
	step atomic.Pointer[func(object.PartitionID) error]
	// sender, in tests, takes the place of access.Propose: answers are lost there.
	sender  atomic.Pointer[func(ctx context.Context, id object.PartitionID, entry []byte) (*namespace.Result, error)]
	between atomic.Pointer[func()] // see betweenLooks
	full    atomic.Bool            // the metadata's disk is down to its reserve
	peers   peers                  // what the other nodes say of themselves
	seen    seenTxs
	leases  leases
	waiters *lockQueues // of locks on inodes
	// lockPolls holds a token for each question about a lock that waits at another node.
	lockPolls chan struct{}
	closing   atomic.Bool
	ready     atomic.Bool
}

// Open starts a node on its directories, making what is missing, and returns
// when every partition answers. It fails with KindBusy when another process
// uses the directories, with KindVersion when a newer BucketDB wrote them, and with
// KindInvalid when they are another store's or node's; it changes nothing then.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Logger, started: time.Now(), incarnation: newUploadID()}
	n.patience.Store(int64(proposeTimeout))
	n.rename, n.compacting = make(chan struct{}, 1), make(chan struct{}, compactors)
	n.damaged = make(chan object.ChunkID, maxDamaged)
	n.suspect = make(chan struct{}, 1)
	n.moves.open(cfg.RepairRate, cfg.rewriteRate, cfg.movePage)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			n.shutdown()
		}
	}()
	n.waits("it reads its log and its metadata", nil)
	if err := n.openStores(); err != nil {
		return nil, err
	}
	if err := n.openMemory(); err != nil {
		return nil, err
	}
	if err := n.openCluster(ctx); err != nil {
		return nil, err
	}
	if err := n.initControl(ctx); err != nil {
		return nil, err
	}
	n.checkSpace()
	n.background()
	n.ready.Store(true)
	return n, nil
}

// initControl waits, as the whole start does, for a control group that is between leaders or busy.
func (n *Node) initControl(ctx context.Context) error {
	for round := 0; ; round++ {
		_, err := n.do(ctx, object.Control, &namespace.Command{Init: &namespace.Init{}})
		if err == nil || n.alone.Load() || !passing(err) { // alone, there is nobody to wait for
			return err
		}
		n.waits(waitsForMajority, err)
		if pause(ctx, round) != nil || n.wal.Err() != nil {
			return err
		}
	}
}

// waitsForMajority: nothing else keeps the control group from answering for long.
const waitsForMajority = "it waits for a majority of the cluster's voters, without which nothing can be read or written: check that the other nodes run and reach this one"

// waits tells whoever started this node what it waits for.
func (n *Node) waits(what string, err error) {
	if n.cfg.Waiting == nil {
		return
	}
	if err != nil {
		what += " (" + err.Error() + ")"
	}
	n.cfg.Waiting(what)
}

// passing reports whether an error of a start is one that patience mends.
func passing(err error) bool {
	switch object.KindOf(err) {
	case object.KindUnavailable, object.KindOverload, object.KindTimeout:
		return true
	}
	return false
}

func (n *Node) openStores() (err error) {
	compression, err := chunk.ParseCompression(n.cfg.Compression)
	if err != nil {
		return err
	}
	// What must not be written to is refused before Badger touches anything.
	if _, err := n.survey(); err != nil {
		if busy := n.inUse(); busy != nil {
			return busy // more to the point
		}
		return err
	}
	fresh, err := n.findSecrets()
	if err != nil {
		return err
	}
	if n.meta, err = meta.Open(meta.Options{FS: n.cfg.FS, Dir: n.metaPath(), MemTableBytes: n.cfg.memTable, Logger: n.log}); err != nil {
		return err
	}
	if err := n.openLayout(); err != nil {
		return err
	}
	if err := n.forgetGiven(); err != nil {
		return err
	}
	if fresh {
		if err := n.keepSecrets(n.secrets); err != nil {
			return err
		}
	}
	if err := n.openLog(); err != nil {
		return err
	}
	n.chunks, err = chunk.Open(chunk.Options{FS: n.cfg.FS, Dirs: n.cfg.StoragePaths, Compression: compression, OnCorrupt: n.damage, Logger: n.log})
	if err != nil {
		return err
	}
	return n.openCopies()
}

// openMemory makes what the node remembers while it runs.
func (n *Node) openMemory() error {
	n.hub = newHub()
	n.waiters, n.lockPolls = newLockQueues(n), make(chan struct{}, maxLockPolls)
	n.bufs = newBuffers(n.cfg.BufferMemory, n.cfg.ChunkSize)
	n.live.done = map[namespace.TxID]chan struct{}{}
	n.active.uploads = map[object.UploadID]bool{}
	if err := n.openPins(); err != nil {
		return err
	}
	for id := range n.ids(object.Control) {
		n.parts = append(n.parts, &partition{id: id, pins: n.pins.Partition(id), dirty: make(chan struct{}, 1), opening: make(chan struct{}, 1)})
	}
	return nil
}

// beginOpening takes the partition's opening token. The opening that was given up
// before goes on beside whatever comes next, on the same files: it has to end first.
func (n *Node) beginOpening(ctx context.Context, p *partition) error {
	select {
	case p.opening <- struct{}{}:
		return nil
	case <-ctx.Done():
		return object.Errorf(object.KindTimeout, "partition %d: an earlier attempt to open it has not ended; check the disk: %w", p.id, ctx.Err())
	case <-n.wal.Failed():
		return object.Errorf(object.KindUnavailable, "partition %d did not start, the log failed: check the disk, then restart: %w", p.id, n.wal.Err())
	}
}

// openGroup opens a group, and gives up when the log fails meanwhile: raft
// knows no way back from a term that it cannot store (its caller waits for
// good) and panics where it cannot read its log. Where no group comes of it, failed is called
// once when nothing goes on any more, which may be after openGroup returned.
func (n *Node) openGroup(ctx context.Context, cfg group.Config, failed func() error) (*group.Group, error) {
	type opened struct {
		g   *group.Group
		err error
	}
	done := make(chan opened, 1)
	n.opening.Add(1)
	go func() {
		defer n.opening.Done()
		var o opened
		defer func() {
			if p := recover(); p != nil {
				o.err = object.Errorf(object.KindUnavailable, "partition %d cannot read its log (%v): check the disk, then restart", cfg.ID, p)
			}
			done <- o
		}()
		o.g, o.err = group.Open(cfg)
	}()
	var err error
	select {
	case o := <-done:
		if o.err != nil {
			return nil, errors.Join(o.err, failed())
		}
		return o.g, nil
	case <-ctx.Done():
		err = object.Errorf(object.KindTimeout, "partition %d did not start: %w", cfg.ID, ctx.Err())
	case <-n.wal.Failed():
		err = object.Errorf(object.KindUnavailable, "partition %d did not start, the log failed: check the disk, then restart: %w", cfg.ID, n.wal.Err())
	}
	n.opening.Add(1)
	go func() {
		defer n.opening.Done()
		if o := <-done; o.g != nil { // too late
			_ = o.g.Close()
		}
		_ = failed()
	}()
	return nil, err
}

// openingWait is how long a node that closes waits for groups whose opening it has
// given up: on a disk that hangs they never end.
const openingWait = 5 * time.Second

// awaitOpenings waits until nothing opens a group any more: it would go on on stores
// that are closed.
func (n *Node) awaitOpenings() {
	over := make(chan struct{})
	go func() {
		n.opening.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(openingWait):
	}
}

// Ready is nil when the node serves requests.
func (n *Node) Ready() error {
	if !n.ready.Load() || n.closing.Load() {
		return object.Errorf(object.KindUnavailable, "the node is starting or stopping: try again")
	}
	return nil
}

// Close stops the node cleanly. Requests under way should have ended.
func (n *Node) Close() error {
	if n.closing.Swap(true) {
		return nil
	}
	return n.shutdown()
}

func (n *Node) shutdown() error {
	n.cancel()
	n.work.Wait()
	var errs []error
	if n.hub != nil {
		n.hub.close()
	}
	errs = append(errs, n.leaveCluster())
	n.awaitOpenings()
	// The metadata first: it marks itself clean only when everything is in its
	// tables, and the WAL must still have what is not.
	if n.copies != nil {
		n.copies.Close()
	}
	if n.chunks != nil {
		errs = append(errs, n.chunks.Close())
	}
	if n.meta != nil {
		errs = append(errs, n.meta.Close())
	}
	if n.wal != nil {
		errs = append(errs, n.wal.Close())
	}
	for _, l := range n.locks {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func newUploadID() (u object.UploadID) {
	rand.Read(u[:]) // never fails (crypto/rand)
	return u
}

func newContentID() object.ContentID { return object.ContentID(newUploadID()) }

// partition returns the group that p names, or an error for an id that no
// partition of this store has (an inode number that was made up).
func (n *Node) partition(p object.PartitionID) (*partition, error) {
	if int(p) >= len(n.parts) {
		return nil, object.Errorf(object.KindStale, "there is no partition %d", p)
	}
	return n.parts[p], nil
}

// firstData is the first partition behind the control group's.
const firstData = object.Control + 1

// ids are the numbers of all partitions from one on.
func (n *Node) ids(from object.PartitionID) iter.Seq[object.PartitionID] {
	return func(yield func(object.PartitionID) bool) {
		for id := from; int(id) <= n.cfg.Partitions && yield(id); id++ {
		}
	}
}

// spread picks a partition for a new directory.
func (n *Node) spread() object.PartitionID {
	u := newUploadID()
	return object.PartitionID(1 + (int(u[0])<<8|int(u[1]))%n.cfg.Partitions)
}
