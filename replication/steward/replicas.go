package steward

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// replicas are those of this node: their records, and the groups that run. The steps
// and what a crash leaves between them are in DESIGN.md. Safe for concurrent use.
type replicas struct {
	cfg *Config
	rec *records

	mu     sync.Mutex // guards what follows
	closed bool
	turns  map[object.PartitionID]*turn
	open   map[object.PartitionID]Group
}

// turn is held by who does something with a partition's replica.
type turn struct {
	token chan struct{}
	users int // who has it or waits for it; guarded by replicas.mu
}

func newReplicas(cfg *Config, rec *records) *replicas {
	return &replicas{cfg: cfg, rec: rec, turns: map[object.PartitionID]*turn{}, open: map[object.PartitionID]Group{}}
}

// take waits for a partition's turn; end gives it back.
func (r *replicas) take(ctx context.Context, p object.PartitionID) (end func(), err error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, errClosed()
	}
	t := r.turns[p]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		r.turns[p] = t
	}
	t.users++
	r.mu.Unlock()
	leave := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(r.turns, p)
		}
	}
	select {
	case t.token <- struct{}{}:
		return func() { <-t.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, object.Errorf(object.KindUnavailable, "the replica of partition %d here is being opened or closed: try again", p)
	}
}

func (r *replicas) self(generation uint64) control.ReplicaID {
	return control.ReplicaID{Node: r.cfg.Self.Node, Generation: generation}
}

// groups are those that run.
func (r *replicas) groups() map[object.PartitionID]Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make(map[object.PartitionID]Group, len(r.open))
	for p, g := range r.open {
		list[p] = g
	}
	return list
}

func (r *replicas) group(p object.PartitionID) Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[p]
}

// start has the host open a replica, unless it is open. The turn is held.
func (r *replicas) start(ctx context.Context, p object.PartitionID, generation uint64, how Start) error {
	if r.group(p) != nil {
		return nil
	}
	g, err := r.cfg.Host.Open(ctx, p, r.self(generation), how)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if !r.closed {
		r.open[p] = g
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	return errors.Join(errClosed(), r.cfg.Host.Close(p, r.self(generation)))
}

// stop has the host close a replica. The turn is held.
func (r *replicas) stop(p object.PartitionID, generation uint64) error {
	r.mu.Lock()
	delete(r.open, p)
	r.mu.Unlock()
	return r.cfg.Host.Close(p, r.self(generation))
}

// resume takes every replica on from where its record says it is. What does not
// succeed is logged and tried again in later rounds.
func (r *replicas) resume(ctx context.Context) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxJobs)
	for p, rec := range r.rec.all() {
		if rec.Life == lifeLost || rec.Life == lifeDestroyed || rec.Life == lifeLive && r.group(p) != nil {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.resumeOne(ctx, p); err != nil {
				r.cfg.Logger.Warn("a replica cannot be opened yet; it is tried again", "partition", uint16(p), "replica", r.self(rec.Generation).String(), "error", err)
			}
		})
	}
	wg.Wait()
}

// unfinished reports whether resume has something to do.
func (r *replicas) unfinished() bool {
	for p, rec := range r.rec.all() {
		if rec.Life == lifeJoining || rec.Life == lifeDropping || rec.Life == lifeLive && r.group(p) == nil {
			return true
		}
	}
	return false
}

func (r *replicas) resumeOne(ctx context.Context, p object.PartitionID) error {
	end, err := r.take(ctx, p)
	if err != nil {
		return err
	}
	defer end()
	switch rec := r.rec.get(p); rec.Life {
	case lifeJoining:
		how := Join
		if rec.Generation == 0 { // given by Bootstrap alone
			how = Bootstrap
		}
		return r.begin(ctx, p, rec.Generation, how)
	case lifeDropping:
		return r.drop(ctx, p, rec.Generation)
	case lifeLive:
		err := r.start(ctx, p, rec.Generation, Resume)
		if object.IsKind(err, object.KindCorrupt) {
			r.cfg.Logger.Error("a replica has lost its log; the cluster will make a new one", "partition", uint16(p), "replica", r.self(rec.Generation).String(), "error", err)
			return r.rec.set(p, rec.Generation, lifeLost)
		}
		return err
	}
	return nil
}

// begin opens a replica whose record says joining, and makes it live. The turn is held.
func (r *replicas) begin(ctx context.Context, p object.PartitionID, generation uint64, how Start) error {
	err := r.start(ctx, p, generation, how)
	if object.IsKind(err, object.KindCorrupt) && how == Join {
		// Nobody was ever told of it: what is left of its beginnings can go.
		if err = r.cfg.Host.Drop(ctx, p, r.self(generation)); err == nil {
			err = r.start(ctx, p, generation, how)
		}
	}
	if err != nil {
		return err
	}
	return r.rec.set(p, generation, lifeLive)
}

// bootstrap opens generation 0 of every partition, then records them all at once.
func (r *replicas) bootstrap(ctx context.Context, partitions int) error {
	live := map[object.PartitionID]record{}
	for p := range object.PartitionID(partitions + 1) {
		end, err := r.take(ctx, p)
		if err != nil {
			return err
		}
		switch rec := r.rec.get(p); {
		case rec.Generation != 0:
		case rec.Life == lifeJoining:
			err, live[p] = r.start(ctx, p, 0, Bootstrap), record{0, lifeLive}
		case rec.Life == lifeLive:
			err = r.start(ctx, p, 0, Resume)
		}
		end()
		if err != nil {
			return err
		}
	}
	return r.rec.put(live)
}

// create makes the replica that the map gives this node. Errors: KindStale: that
// id has been used or is not in the map as joining, and never will be created;
// KindBusy: an older replica is still here; else as Host.Open's, to be tried again.
func (r *replicas) create(ctx context.Context, p object.PartitionID, generation uint64) error {
	end, err := r.take(ctx, p)
	if err != nil {
		return err
	}
	defer end()
	rec := r.rec.get(p)
	id := r.self(generation)
	switch {
	case rec.Life != 0 && generation < rec.Generation, rec.Life >= lifeLost && generation == rec.Generation:
		return object.Errorf(object.KindStale, "replica %s of partition %d is not made again: %s is %s here", id, p, r.self(rec.Generation), rec.Life)
	case rec.Life != 0 && generation == rec.Generation && rec.Life == lifeLive:
		return r.start(ctx, p, generation, Resume)
	case rec.Life != 0 && generation == rec.Generation:
		return r.begin(ctx, p, generation, Join)
	case rec.Life == lifeLive || rec.Life == lifeLost:
		return object.Errorf(object.KindBusy, "replica %s of partition %d is still on this node: it goes before %s comes", r.self(rec.Generation), p, id)
	}
	if err := r.awaited(ctx, p, id); err != nil {
		return err
	}
	if rec.Life == lifeJoining || rec.Life == lifeDropping { // an older one, of which nobody was told or which is going
		if err := r.drop(ctx, p, rec.Generation); err != nil {
			return err
		}
	}
	if err := r.rec.set(p, generation, lifeJoining); err != nil {
		return err
	}
	return r.begin(ctx, p, generation, Join)
}

// awaited makes sure that nobody has counted on a replica yet: in later states a
// missing record is a loss. Asked after the record was looked at.
func (r *replicas) awaited(ctx context.Context, p object.PartitionID, id control.ReplicaID) error {
	st, err := r.cfg.State(ctx, true)
	if err != nil {
		return err
	}
	if int(p) < len(st.Partitions) {
		for _, x := range st.Partitions[p].Replicas {
			if x.ID == id && x.State == control.Joining && !x.Lost {
				return nil
			}
		}
	}
	return object.Errorf(object.KindStale, "the map does not wait for replica %s of partition %d", id, p)
}

// destroy ends a replica for ever. A repeat, and one that was never here, are no errors.
func (r *replicas) destroy(ctx context.Context, p object.PartitionID, generation uint64) error {
	end, err := r.take(ctx, p)
	if err != nil {
		return err
	}
	defer end()
	rec := r.rec.get(p)
	switch {
	case rec.Life != 0 && (generation < rec.Generation || rec.Life == lifeDestroyed && generation == rec.Generation):
		return nil
	case rec.Life != 0 && rec.Life != lifeDestroyed && generation > rec.Generation:
		if err := r.drop(ctx, p, rec.Generation); err != nil {
			return err
		}
	}
	return r.drop(ctx, p, generation)
}

// drop is destroy's steps. The turn is held.
func (r *replicas) drop(ctx context.Context, p object.PartitionID, generation uint64) error {
	if err := r.rec.set(p, generation, lifeDropping); err != nil {
		return err
	}
	if err := r.stop(p, generation); err != nil {
		return err
	}
	if err := r.cfg.Host.Drop(ctx, p, r.self(generation)); err != nil {
		return err
	}
	return r.rec.set(p, generation, lifeDestroyed)
}

// losses records as lost what the map counts on and this node has no record of. An old map
// does no harm: what it names has a record at least as new.
func (r *replicas) losses(ctx context.Context, st *control.State) error {
	for i := range st.Partitions {
		p := object.PartitionID(i)
		for _, x := range st.Partitions[i].Replicas {
			if x.ID.Node != r.cfg.Self.Node || x.Lost || x.State <= control.Joining || x.State >= control.Removed || r.has(p, x.ID.Generation) {
				continue
			}
			if st.Irreplaceable(p, x.ID) {
				r.cfg.Logger.Error("this node has no record of the only replica of a partition that is in force; nothing is done with it: restore "+RecordsName+" from a backup, or remove this node if the partition is to be given up",
					"partition", uint16(p), "replica", x.ID.String(), "directory", r.cfg.Dir)
				continue
			}
			if err := r.lose(ctx, p, x.ID.Generation); err != nil {
				return err
			}
		}
	}
	return nil
}

// has reports whether there is a record that others may count on, or a newer one.
func (r *replicas) has(p object.PartitionID, generation uint64) bool {
	rec := r.rec.get(p)
	return rec.Life != 0 && (rec.Generation > generation || rec.Generation == generation && rec.Life != lifeJoining)
}

func (r *replicas) lose(ctx context.Context, p object.PartitionID, generation uint64) error {
	end, err := r.take(ctx, p)
	if err != nil {
		return err
	}
	defer end()
	rec := r.rec.get(p)
	if r.has(p, generation) {
		return nil
	}
	r.cfg.Logger.Error("the map counts on a replica that this node has no record of; the cluster will make a new one",
		"partition", uint16(p), "replica", r.self(generation).String())
	if rec.Life != 0 && rec.Life != lifeDestroyed {
		if err := r.drop(ctx, p, rec.Generation); err != nil {
			return err
		}
	}
	return r.rec.set(p, generation, lifeLost)
}

// held is what the planner is told of the replicas here. Of those that the map still
// names below a record's generation nothing is left.
func (r *replicas) held(st *control.State) map[control.ReplicaKey]control.Held {
	all := r.rec.all()
	list := make(map[control.ReplicaKey]control.Held, len(all))
	for p, rec := range all {
		if h := rec.held(); h != 0 {
			list[control.ReplicaKey{Partition: p, Generation: rec.Generation}] = h
		}
		if st == nil || int(p) >= len(st.Partitions) {
			continue
		}
		for _, x := range st.Partitions[p].Replicas {
			if x.ID.Node == r.cfg.Self.Node && x.ID.Generation < rec.Generation {
				list[control.ReplicaKey{Partition: p, Generation: x.ID.Generation}] = control.HeldDestroyed
			}
		}
	}
	return list
}

// close closes every replica that runs, after what is under way with it.
func (r *replicas) close() error {
	r.mu.Lock()
	r.closed = true
	var ps []object.PartitionID
	for p := range r.open {
		ps = append(ps, p)
	}
	for p := range r.turns {
		ps = append(ps, p)
	}
	turns := r.turns
	r.mu.Unlock()
	slices.Sort(ps)
	var errs []error
	for _, p := range slices.Compact(ps) {
		r.mu.Lock()
		t := turns[p]
		r.mu.Unlock()
		if t != nil {
			t.token <- struct{}{}
		}
		if r.group(p) != nil {
			errs = append(errs, r.stop(p, r.rec.get(p).Generation))
		}
		if t != nil {
			<-t.token
		}
	}
	return errors.Join(errs...)
}
