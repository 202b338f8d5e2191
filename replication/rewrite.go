package replication

import (
	"context"
	"errors"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A setting that changed reaches what is there already in two steps, each with its
// record in the partition and driven by that partition's leader, so that a crash or
// another leader goes on where the last one was. The walker gives every name under
// the bucket the new scheme, which files those with chunks as strays; the rewriter
// reads strays and puts them into chunks of their scheme, as compaction does: a step
// replaces extents that nobody changed since, and no write waits for it.

const (
	// rewriteEvery is how often leaders look for walks and strays.
	rewriteEvery = 2 * time.Second
	// walkPage is how many names of a walk are one step, walkPause the rest between two.
	walkPage  = 500
	walkPause = 50 * time.Millisecond
	// walkPasses bounds the passes: two buckets could quarrel about a file with names in both.
	walkPasses = 16
	// rewriteRate is Config.rewriteRate, for each node.
	rewriteRate = 32 << 20
	// rewriteStep is how many bytes of a file are rewritten under one pin: what is
	// replaced goes only when the pin does.
	rewriteStep = 64 << 20
	// strayBatch is how many strays are listed at a time, strayCount how many of a partition
	// are counted. While there are many that is done every strayPoll.
	strayBatch = 64
	strayCount = 1000
	strayMany  = 100
	strayPoll  = 10 * time.Second
	// strayWait is how long a file is left alone that could not be rewritten.
	strayWait = time.Minute
)

// walker drives the walks of the partitions that this node leads.
func (n *Node) walker() {
	n.every(rewriteEvery, func() {
		for _, p := range n.parts {
			if r := p.led(); r != nil && p.rewriting.Swap(false) {
				left, err := n.walkAll(p, r)
				n.logged("rewriting", err)
				if left || err != nil {
					p.rewriting.Store(true)
				}
			}
		}
	})
}

// walkAll takes the walks of a partition on; left: there are some still.
func (n *Node) walkAll(p *partition, r *replica) (left bool, err error) {
	v, err := r.machine.Local()
	if err != nil {
		return true, err
	}
	list, err := v.Rewrites()
	v.Close()
	var errs []error
	for i := range list {
		if err := n.walk(p, &list[i]); !object.IsKind(err, object.KindPrecondition) { // the setting was changed once more
			errs = append(errs, err)
		}
	}
	return len(list) > 0, errors.Join(append(errs, err)...)
}

// walk takes a walk on, until it waits for the strays, or this node leads no more.
func (n *Node) walk(p *partition, w *namespace.Rewrite) error {
	for !w.Progress.Walked {
		if err := n.walkStep(w); err != nil {
			return err
		}
		if err := n.stepRewrite(w, false); err != nil || p.led() == nil {
			return err
		}
		if !w.Progress.Walked && !n.rest(walkPause) {
			return nil
		}
	}
	if time.Now().UnixNano() < p.recount.Load() {
		return nil
	}
	left, err := n.countStrays(n.ctx)
	if left > strayMany {
		p.recount.Store(time.Now().Add(strayPoll).UnixNano())
	}
	if err != nil || left == w.Progress.Left && left > 0 {
		return err
	}
	if w.Progress.Left = left; left == 0 {
		n.log.Info("all that is under a directory is kept as it was set", "dir", w.Dir, "scheme", w.Scheme, "took", time.Since(time.Unix(0, w.Started)))
	}
	return n.stepRewrite(w, left == 0)
}

func (n *Node) stepRewrite(w *namespace.Rewrite, done bool) error {
	_, err := n.do(n.ctx, w.Dir.Partition(), &namespace.Command{StepRewrite: &namespace.StepRewrite{Dir: w.Dir, Begun: w.Begun, Progress: w.Progress, Done: done}})
	return err
}

// walkStep looks at the next names of a walk, and gives those another scheme that
// have not the right one. Directories get theirs before what is in them is listed: what
// is made there later inherits it.
func (n *Node) walkStep(w *namespace.Rewrite) error {
	at := &w.Progress
	set := func(id object.PartitionID, inodes ...object.InodeID) error {
		at.Changed += uint64(len(inodes))
		_, err := n.do(n.ctx, id, &namespace.Command{SetScheme: &namespace.SetScheme{Inodes: inodes, Scheme: w.Scheme}})
		return err
	}
	l := &lister{n: n, ctx: n.ctx, o: ListOptions{Limit: walkPage}, enter: func(d *object.Inode) error {
		if at.Seen++; d.Scheme == w.Scheme {
			return nil
		}
		return set(d.ID.Partition(), d.ID)
	}}
	if at.After != "" {
		l.from = at.After + "\x00"
	}
	if err := l.walk(w.Dir, ""); err != nil {
		return err
	}
	other := map[object.PartitionID]*reschemed{}
	for _, o := range l.page.Objects {
		if o.Inode.IsDir() {
			continue // entered
		}
		if at.Seen++; o.Inode.Scheme == w.Scheme {
			continue
		}
		id := o.Inode.ID.Partition()
		if other[id] == nil {
			other[id] = &reschemed{}
		}
		if list := other[id].add(o.Inode); list != nil {
			if err := set(id, list...); err != nil {
				return err
			}
		}
	}
	for id, rest := range other {
		if len(rest.list) == 0 {
			continue
		}
		if err := set(id, rest.list...); err != nil {
			return err
		}
	}
	switch {
	case l.page.Next != "":
		at.After = l.page.Next
	case at.Changed == 0 || at.Pass == walkPasses:
		at.Walked, at.After = true, ""
	default:
		*at = namespace.Progress{Pass: at.Pass + 1}
	}
	return nil
}

// reschemed gathers inodes of a partition for an entry that fits a transaction of the
// store: it writes each of them again.
type reschemed struct {
	list  []object.InodeID
	bytes int
}

// maxReschemed bounds the records that one SetScheme writes again, in bytes. One more
// is the largest that there is: object.MaxXattrTotal of attributes (or what it inherited,
// two of object.MaxACL), and the user metadata that one request brought.
const maxReschemed = 256 << 10

// add takes an inode in; full: the list is an entry, and a new one has begun.
func (g *reschemed) add(i *object.Inode) (full []object.InodeID) {
	g.list = append(g.list, i.ID)
	g.bytes += 512 + len(i.Target) + len(i.ContentType) + len(i.ETagValue)
	for name, value := range i.Meta {
		g.bytes += len(name) + len(value)
	}
	for name, value := range i.Xattrs {
		g.bytes += len(name) + len(value)
	}
	if g.bytes < maxReschemed {
		return nil
	}
	full = g.list
	*g = reschemed{}
	return full
}

// countStrays is about how many strays the cluster has.
func (n *Node) countStrays(ctx context.Context) (sum uint64, err error) {
	for id := range n.ids(object.Control) {
		err := n.inView(ctx, id, func(v *namespace.View) error {
			list, err := v.Strays(0, strayCount)
			sum += uint64(len(list))
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// rewriter works on the strays of the partitions that this node leads, a file at a time.
func (n *Node) rewriter() {
	later := map[object.InodeID]time.Time{}
	n.every(rewriteEvery, func() {
		for id, until := range later {
			if time.Now().After(until) {
				delete(later, id)
			}
		}
		for _, p := range n.parts {
			if r := p.led(); r != nil && p.strayed.Swap(false) {
				left, err := n.rewriteStrays(p, r, later)
				n.logged("rewriting", err)
				if left || err != nil {
					p.strayed.Store(true)
				}
			}
		}
	})
}

// rewriteStrays goes over a partition's strays once; those that fail are left alone
// until later says. left: there were some.
func (n *Node) rewriteStrays(p *partition, r *replica, later map[object.InodeID]time.Time) (left bool, err error) {
	for behind := object.InodeID(0); p.led() == r && n.ctx.Err() == nil; {
		v, err := r.machine.Local()
		if err != nil {
			return true, err
		}
		list, err := v.Strays(behind, strayBatch)
		v.Close()
		if err != nil || len(list) == 0 {
			return left, err
		}
		left = true
		for _, s := range list {
			if behind = s.Inode; !later[s.Inode].IsZero() {
				continue
			}
			err := n.rewriteStray(n.ctx, s)
			switch {
			case object.IsKind(err, object.KindPrecondition): // changed meanwhile: the next round
			case err != nil:
				later[s.Inode] = time.Now().Add(strayWait)
				n.logged("rewriting of file "+s.Inode.String(), err)
			}
		}
	}
	return true, nil
}

// rewriteStray puts what a file has in chunks of other schemes than its own into
// chunks of its own. KindPrecondition: it is changed, or compacted, just now.
func (n *Node) rewriteStray(ctx context.Context, s namespace.Stray) error {
	if !n.scatter.take(s.Inode) {
		return object.Errorf(object.KindPrecondition, "the file is being compacted")
	}
	defer n.scatter.give(s.Inode)
	for off := int64(0); off >= 0; {
		var err error
		off, err = n.rewriteFrom(ctx, s.Inode, off)
		if object.IsKind(err, object.KindStale) {
			break // it is gone
		}
		if err != nil {
			return err
		}
	}
	_, err := n.do(ctx, s.Inode.Partition(), &namespace.Command{Unstray: &namespace.Unstray{Inode: s.Inode, Marked: s.Marked}})
	return err
}

var errEnough = errors.New("enough for one step")

// rewriteFrom rewrites a bounded part of a file from an offset on, and returns where
// to go on; -1 at the end.
func (n *Node) rewriteFrom(ctx context.Context, ino object.InodeID, off int64) (next int64, err error) {
	r, err := n.OpenInode(ctx, ino)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if r.inode.Type != object.TypeRegular || r.inode.Content.IsZero() {
		return -1, nil
	}
	run, done := &packing{}, int64(0)
	flush := func() error {
		if len(run.list) == 0 {
			return nil
		}
		if err := n.moves.rewrite.Wait(ctx, run.bytes); err != nil {
			return err
		}
		if err := n.pack(ctx, r, run); err != nil {
			return err
		}
		done += run.bytes
		run = &packing{}
		return ctx.Err()
	}
	err = r.extents(ctx, off, r.inode.Size, func(e object.Extent) error {
		stray := e.Data == nil && e.Scheme != r.inode.Scheme
		if !stray || !run.takes(e, n.cfg.ChunkSize) {
			if err := flush(); err != nil {
				return err
			}
		}
		if done >= rewriteStep {
			next = e.Offset
			return errEnough
		}
		if stray {
			run.add(e)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return next, nil
	}
	if err == nil {
		err = flush()
	}
	return -1, err
}

// rest waits; false: the node closes.
func (n *Node) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-n.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// renamed has a file that was renamed into another bucket kept as that bucket's data is. (One
// that stays in its partition is seen to where the entry is applied, a directory before its
// rename's record is given back.)
func (n *Node) renamed(ctx context.Context, rn renaming, e *namespace.Entry, err error) {
	if err != nil || rn.dir.Partition() == rn.newDir.Partition() {
		return
	}
	n.logged("the scheme of what was renamed", n.follow(ctx, rn.newDir, e.Inode, e.Type))
}

// follow has what was moved to a directory kept as the data there is. It may be repeated.
func (n *Node) follow(ctx context.Context, dir, moved object.InodeID, t object.FileType) error {
	to, err := n.GetAttr(ctx, dir)
	if err != nil {
		return unlessStale(err) // what it would follow is gone
	}
	ino, err := n.GetAttr(ctx, moved)
	if err != nil || ino.Scheme == to.Scheme {
		return unlessStale(err)
	}
	cmd := &namespace.Command{SetScheme: &namespace.SetScheme{Inodes: []object.InodeID{moved}, Scheme: to.Scheme}}
	if t == object.TypeDirectory {
		cmd = &namespace.Command{Rewrite: &namespace.Rewrite{Dir: moved, Scheme: to.Scheme}}
	}
	_, err = n.do(withoutToken(ctx), moved.Partition(), cmd)
	return unlessStale(err)
}

// unlessStale is err, or nil where it says that an inode is gone.
func unlessStale(err error) error {
	if object.IsKind(err, object.KindStale) {
		return nil
	}
	return err
}
