package replication

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// renaming is one rename with both ends resolved.
type renaming struct {
	dir, newDir   object.InodeID
	name, newName string
	flags         RenameFlags
	mount         bool
	epoch         uint64
	chain         *namespace.Cascade // of dir
}

// Rename moves a name, as renameat2: over what the new name leads to (a file
// over a file, a directory over an empty directory), in one step.
func (n *Node) Rename(ctx context.Context, dir object.InodeID, name string, newDir object.InodeID, newName string, f RenameFlags) error {
	if err := checkName(newName); err != nil {
		return err
	}
	if dir == object.RootInode || newDir == object.RootInode {
		return object.Errorf(object.KindCrossDevice, "a bucket cannot be renamed: copy it")
	}
	_, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.renameAny(ctx, renaming{dir: dir, name: name, newDir: newDir, newName: newName, flags: f, mount: true})
	})
	return err
}

// RenameObject moves an object or, with keys that end in "/", a directory with
// all that is under it, at a cost that does not depend on that.
func (n *Node) RenameObject(ctx context.Context, bucket, key, newBucket, newKey string, f RenameFlags) error {
	err := errors.Join(checkKey(key), checkKey(newKey))
	if err == nil {
		_, err = n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
			return n.renameKeys(ctx, bucket, key, newBucket, newKey, f)
		})
	}
	return object.WithOp(err, "rename", bucket, key)
}

func (n *Node) renameKeys(ctx context.Context, bucket, key, newBucket, newKey string, f RenameFlags) (*namespace.Result, error) {
	from, err := n.locate(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	if !from.found() {
		return nil, errNoObject()
	}
	file, sub, err := n.entryUnder(ctx, from.epoch, from.dir, from.name)
	if err != nil {
		return nil, err
	}
	if from.isDir && sub == nil || !from.isDir && file == nil {
		return nil, errNoObject()
	}
	to, err := n.locate(ctx, newBucket, newKey)
	if err != nil {
		return nil, err
	}
	if from.isDir != to.isDir {
		return nil, object.Errorf(object.KindInvalid, "a directory's keys end in \"/\", an object's do not: give both of one sort")
	}
	return n.withParents(ctx, &to, n.spread(), func() (*namespace.Result, error) {
		rn := renaming{dir: from.dir, name: from.name, newDir: to.dir, newName: to.name, flags: f, epoch: from.epoch, chain: from.chain}
		e, rename := file, n.renameFile
		if from.isDir {
			e, rename = sub, n.renameDir
		}
		r, err := rename(ctx, rn, e)
		if !from.isDir {
			n.renamed(ctx, rn, e, err)
		}
		return r, err
	})
}

func (n *Node) renameAny(ctx context.Context, rn renaming) (*namespace.Result, error) {
	file, sub, err := n.entry(ctx, rn.dir, rn.name)
	switch {
	case err != nil:
		return nil, err
	case sub != nil:
		return n.renameDir(ctx, rn, sub)
	case file != nil:
		r, err := n.renameFile(ctx, rn, file)
		n.renamed(ctx, rn, file, err)
		return r, err
	}
	return nil, object.Errorf(object.KindNotFound, "no such file or directory")
}

func (n *Node) renameFile(ctx context.Context, rn renaming, e *namespace.Entry) (*namespace.Result, error) {
	here, there := rn.dir.Partition(), rn.newDir.Partition()
	if here == there {
		return n.do(ctx, here, &namespace.Command{Epoch: rn.epoch, Token: token(ctx), Move: &namespace.Move{Dir: rn.dir, Name: rn.name,
			NewDir: rn.newDir, NewName: rn.newName, NoReplace: rn.flags.NoReplace, Exchange: rn.flags.Exchange, Mount: rn.mount, Cascade: rn.chain}})
	}
	if rn.flags.Exchange {
		return nil, object.Errorf(object.KindNotSupported, "names of two directories cannot be exchanged yet")
	}
	old, sub, err := n.entryUnder(ctx, rn.epoch, rn.newDir, rn.newName)
	switch {
	case err != nil:
		return nil, err
	case sub != nil && rn.mount:
		return nil, object.Errorf(object.KindIsDirectory, "a directory of the new name exists")
	case old != nil && rn.flags.NoReplace:
		return nil, object.Errorf(object.KindExists, "the new name is taken")
	}
	put := &namespace.PutDentry{Dir: rn.newDir, Name: rn.newName, Inode: e.Inode, Type: e.Type, Mount: rn.mount, Look: !rn.flags.NoReplace}
	if old != nil {
		put.Replace = old.Inode
	}
	r, err := n.transact(ctx, plan{
		halves:  []half{rn.moving(e)},
		decider: there,
		epoch:   rn.epoch,
		decide:  func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{PutDentry: put} },
	})
	if err != nil && r != nil && r.Elsewhere == e.Inode {
		// Two names of one file: rename does nothing (POSIX). Only the decision can
		// tell: of two looks, the file may have moved from the one to the other.
		return &namespace.Result{}, nil
	}
	return r, err
}

func (rn *renaming) moving(e *namespace.Entry) half {
	return half{rn.dir.Partition(), namespace.Half{Moving: &namespace.Moving{Dir: rn.dir, Name: rn.name, Type: e.Type,
		Inode: e.Inode, Cascade: rn.chain, Explicit: rn.mount}}}
}

// renameDir moves a directory. Renames of directories are serialised over the
// whole cluster by a record in the control group, whose epoch fences a
// predecessor that was given up, and every resolution that began before.
func (n *Node) renameDir(ctx context.Context, rn renaming, e *namespace.Entry) (*namespace.Result, error) {
	if rn.flags.Exchange {
		return nil, object.Errorf(object.KindNotSupported, "directories cannot be exchanged yet")
	}
	if rn.dir == rn.newDir && rn.name == rn.newName {
		return &namespace.Result{}, nil
	}
	select { // one at a time from this node
	case n.rename <- struct{}{}:
		defer func() { <-n.rename }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	rec, err := n.beginRename(ctx, rn, e.Inode)
	if err != nil {
		return nil, err
	}
	// The look at the entry was before the record: look again, under its epoch.
	if err := n.stillThere(ctx, rn, e); err != nil {
		n.endRename(rec)
		return nil, err
	}
	r, ended, err := n.moveDir(ctx, rn, e, rec)
	if ended {
		n.endRename(rec)
	} // else the next rename settles this one
	return r, err
}

// stillThere checks, with the record taken, what was resolved before.
func (n *Node) stillThere(ctx context.Context, rn renaming, e *namespace.Entry) error {
	if _, sub, err := n.entry(ctx, rn.dir, rn.name); err != nil || sub == nil || sub.Inode != e.Inode {
		return again{errors.Join(err, object.Errorf(object.KindConflict, "the directory was moved meanwhile"))}
	}
	if rn.epoch != 0 {
		if now, err := n.epoch(ctx); err != nil || now != rn.epoch {
			return again{errors.Join(err, object.Errorf(object.KindConflict, "a directory was renamed meanwhile"))}
		}
	}
	return n.checkLoop(ctx, e.Inode, rn.newDir)
}

// epoch is the rename epoch that a path resolved from now on stands under.
func (n *Node) epoch(ctx context.Context) (epoch uint64, err error) {
	err = n.inView(ctx, object.Control, func(v *namespace.View) (err error) {
		epoch, err = v.Epoch()
		return err
	})
	return epoch, err
}

// moveDir moves with the record taken. ended: nothing of it is left to do.
func (n *Node) moveDir(ctx context.Context, rn renaming, e *namespace.Entry, rec *namespace.DirRename) (_ *namespace.Result, ended bool, _ error) {
	old, sub, err := n.entryUnder(ctx, rn.epoch, rn.newDir, rn.newName)
	switch {
	case err != nil:
		return nil, true, err
	case old != nil && rn.mount && sub == nil:
		return nil, true, object.Errorf(object.KindNotDirectory, "the new name is a file's")
	case sub != nil && rn.flags.NoReplace:
		return nil, true, object.Errorf(object.KindExists, "the new name is taken")
	}
	put := &namespace.PutDentry{Dir: rn.newDir, Name: rn.newName, Inode: e.Inode, Type: object.TypeDirectory, Mount: rn.mount, Look: !rn.flags.NoReplace}
	halves := []half{rn.moving(e)}
	if sub != nil {
		put.Replace = sub.Inode
		halves = append(halves, half{sub.Inode.Partition(), namespace.Half{Dead: &namespace.Dead{Dir: sub.Inode}}})
	}
	r, err := n.transact(ctx, plan{
		halves:  halves,
		decider: rn.newDir.Partition(),
		epoch:   rec.Epoch,
		fence:   func(ctx context.Context) error { return n.raiseEpochs(ctx, rec.Epoch) },
		decide:  func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{PutDentry: put} },
	})
	if err != nil || rn.dir == rn.newDir {
		return r, err == nil || !uncertain(err), err
	}
	// The parent pointer follows before the record is given back, so that the
	// next rename's loop check sees it; and the scheme, so that a successor sees to it.
	bg, cancel := n.detached()
	defer cancel()
	_, perr := n.do(bg, e.Inode.Partition(), &namespace.Command{SetAttr: &namespace.SetAttr{Inode: e.Inode, Parent: rn.newDir}})
	if object.IsKind(perr, object.KindStale) {
		return r, true, nil
	}
	if perr == nil {
		perr = n.follow(bg, rn.newDir, e.Inode, e.Type)
	}
	if perr != nil {
		n.log.Warn("a directory's parent pointer, or its scheme, is left to the next rename", "inode", e.Inode, "err", perr)
		return r, false, nil
	}
	return r, true, nil
}

// renameGrace is how long another node's rename of a directory is left alone.
const renameGrace = 2 * time.Second

// beginRename takes the record, settling a predecessor that did not end.
func (n *Node) beginRename(ctx context.Context, rn renaming, moving object.InodeID) (*namespace.DirRename, error) {
	var met object.UploadID // the predecessor's, and when it was seen first
	var since time.Time
	cmd := &namespace.BeginRename{Nonce: newUploadID(), Dir: rn.dir, Name: rn.name, Inode: moving, NewDir: rn.newDir, NewName: rn.newName}
	for {
		r, err := n.do(ctx, object.Control, &namespace.Command{BeginRename: cmd})
		if err == nil {
			return r.Rename, nil
		}
		if r == nil || r.Rename == nil {
			return nil, err
		}
		// Another node's, which may be alive: settled at once it would fail, come back and
		// settle ours, for ever. Who is at it for long is taken for dead.
		if met != r.Rename.Nonce {
			met, since = r.Rename.Nonce, time.Now()
		}
		if !n.alone.Load() && time.Since(since) < renameGrace {
			if err := pause(ctx, 5); err != nil {
				return nil, err
			}
			continue
		}
		if err := n.settleRename(ctx, r.Rename); err != nil {
			return nil, err
		}
		cmd.Settled = r.Rename.Nonce
	}
}

// settleRename fences a predecessor's entries and brings its move to an end.
func (n *Node) settleRename(ctx context.Context, rec *namespace.DirRename) error {
	if err := n.raiseEpochs(ctx, rec.Epoch+1); err != nil {
		return err
	}
	var sub *namespace.Entry
	err := n.inView(ctx, rec.Dir.Partition(), func(v *namespace.View) (err error) {
		_, sub, err = v.Lookup(rec.Dir, rec.Name)
		return err
	})
	if err != nil && !object.IsKind(err, object.KindStale) {
		return err
	}
	if sub != nil && sub.Tx != nil {
		if err := n.settle(ctx, *sub.Tx, rec.Dir.Partition()); err != nil {
			return err
		}
	}
	return n.settleParent(ctx, rec)
}

// settleParent sets the parent pointer of a directory whose move came about, and has it kept as
// the data of its new place is.
func (n *Node) settleParent(ctx context.Context, rec *namespace.DirRename) error {
	var at *namespace.Entry
	err := n.inView(ctx, rec.NewDir.Partition(), func(v *namespace.View) (err error) {
		at, err = v.LookupOne(rec.NewDir, rec.NewName, true)
		return err
	})
	if object.IsKind(err, object.KindStale) || err == nil && (at == nil || at.Inode != rec.Inode) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = n.do(ctx, rec.Inode.Partition(), &namespace.Command{SetAttr: &namespace.SetAttr{Inode: rec.Inode, Parent: rec.NewDir}})
	if object.IsKind(err, object.KindStale) {
		return nil
	}
	if err == nil {
		err = n.follow(ctx, rec.NewDir, rec.Inode, object.TypeDirectory)
	}
	return err
}

func (n *Node) endRename(rec *namespace.DirRename) {
	ctx, cancel := n.detached()
	defer cancel()
	if _, err := n.do(ctx, object.Control, &namespace.Command{EndRename: &namespace.EndRename{Nonce: rec.Nonce}}); err != nil {
		n.log.Warn("a directory rename's record is left to the next rename", "err", err)
	}
}

// raiseEpochs tells every partition of a rename epoch: the control group first,
// since paths are resolved under what it knows, then all others at once. A crash
// between leaves partitions that know an older epoch, which refuse nothing.
func (n *Node) raiseEpochs(ctx context.Context, epoch uint64) error {
	if _, err := n.propose(ctx, object.Control, &namespace.Command{RaiseEpoch: &namespace.RaiseEpoch{Epoch: epoch}}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for id := range n.ids(firstData) {
		g.Go(func() error {
			_, err := n.propose(ctx, id, &namespace.Command{RaiseEpoch: &namespace.RaiseEpoch{Epoch: epoch}})
			return err
		})
	}
	return g.Wait()
}

// checkLoop refuses to move a directory below itself. Parents that lead round in a circle,
// which only damage can bring about, are KindCorrupt: a walk up them would never end, and hold
// the record that all renames of directories wait for.
func (n *Node) checkLoop(ctx context.Context, dir, newDir object.InodeID) error {
	// Brent's way to find a cycle (BIT 20, 1980): the place to come back to moves on after twice as many steps each time.
	mark, steps, limit := object.InodeID(0), 0, 1
	for at := newDir; at != 0 && at != object.RootInode; steps++ {
		switch {
		case at == dir:
			return object.Errorf(object.KindLoop, "a directory cannot be moved below itself")
		case at == mark:
			return object.Errorf(object.KindCorrupt, "the parents of directory %v, which is on the way to the new place, lead back to it: the metadata is damaged there; "+
				"move to another directory, and copy what is in this one to a new one", at)
		case steps == limit:
			mark, steps, limit = at, 0, 2*limit
		}
		ino, err := n.GetAttr(ctx, at)
		if err != nil {
			return err
		}
		at = ino.Parent
	}
	return nil
}
