package replication

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// newInode is the record of a node to be made, stamped with the clock.
func newInode(t object.FileType, node NewNode) object.Inode {
	now := time.Now().UnixNano()
	i := object.Inode{Type: t, Mode: node.Mode & 0o7777, UID: node.UID, GID: node.GID, Rdev: node.Rdev, Target: node.Target,
		Atime: now, Mtime: now, Ctime: now, Btime: now}
	if t == object.TypeSymlink {
		i.Mode, i.Size = 0o777, int64(len(node.Target))
	}
	return i
}

// Lookup is the inode under a name: the directory, where a file and a
// directory of that name stand side by side. KindNotFound when there is none,
// KindStale when the directory itself is gone. A name whose inode is gone, after
// damage, answers with a record of that number with no link, no mode and no
// content, so that who must look a name up before it drops it (a kernel) can.
func (n *Node) Lookup(ctx context.Context, dir object.InodeID, name string) (*object.Inode, error) {
	var (
		ino    *object.Inode
		before gone
	)
	err := n.retry(ctx, func() error {
		file, sub, err := n.entry(ctx, dir, name)
		if err != nil {
			return err
		}
		e := sub
		if e == nil {
			e = file
		}
		if e == nil {
			return object.Errorf(object.KindNotFound, "no such file or directory")
		}
		ino, err = n.GetAttr(ctx, e.Inode)
		if object.IsKind(err, object.KindStale) || err == nil && ino.Nlink == 0 {
			err = before.again(e.Inode, errNoObject()) // unlinked between the two looks
		}
		if object.IsKind(err, object.KindCorrupt) && before.ino == e.Inode {
			ino, err = &object.Inode{ID: e.Inode, Type: e.Type}, nil
		}
		return err
	})
	return ino, err
}

// alive is a record that Lookup found; KindCorrupt where the inode is gone.
func alive(ino *object.Inode, err error) (*object.Inode, error) {
	if err == nil && ino.Nlink == 0 {
		return nil, errDangling(ino.ID)
	}
	return ino, err
}

// keptDir is the directory that an earlier attempt of the same token made, wherever it is by
// now. One that was removed since is told as it was asked for: the mkdir succeeded.
func (n *Node) keptDir(ctx context.Context, r *namespace.Result, asked object.Inode) (*object.Inode, error) {
	ino, err := n.GetAttr(ctx, r.Made)
	if object.IsKind(err, object.KindStale) {
		asked.ID = r.Made
		return &asked, nil
	}
	return ino, err
}

// Resolve walks a path of a bucket ("" is its root) to its inode, following no symlink.
func (n *Node) Resolve(ctx context.Context, bucket, path string) (*object.Inode, error) {
	p, err := n.locate(ctx, bucket, path)
	if err != nil {
		return nil, err
	}
	if !p.found() {
		return nil, object.Errorf(object.KindNotFound, "no such file or directory")
	}
	if p.name == "" {
		return n.GetAttr(ctx, p.dir)
	}
	return alive(n.Lookup(ctx, p.dir, p.name))
}

// GetAttr is the record of an inode; KindStale when it is gone.
func (n *Node) GetAttr(ctx context.Context, ino object.InodeID) (i *object.Inode, err error) {
	err = n.inView(ctx, ino.Partition(), func(v *namespace.View) (err error) {
		i, err = v.Inode(ino)
		return err
	})
	return i, err
}

// SetAttr changes attributes, and the size, in one step.
func (n *Node) SetAttr(ctx context.Context, ino object.InodeID, a SetAttr) (*object.Inode, error) {
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, ino.Partition(), &namespace.Command{Token: token(ctx), SetAttr: setAttr(ino, a)})
	})
	if err != nil {
		return nil, err
	}
	return r.Inode, nil
}

func setAttr(ino object.InodeID, a SetAttr) *namespace.SetAttr {
	return &namespace.SetAttr{Inode: ino, Mode: a.Mode, UID: a.UID, GID: a.GID, Size: a.Size, Atime: a.Atime, Mtime: a.Mtime,
		ContentType: a.ContentType, Meta: a.Meta, SetMeta: a.Meta != nil}
}

// ReadDir returns up to limit entries behind a cursor ("" starts) in name
// order, and the next cursor ("" at the end). A file beside a directory of its
// name is left out. Attr is set where plus is asked for.
func (n *Node) ReadDir(ctx context.Context, dir object.InodeID, cursor string, limit int, plus bool) ([]object.DirEntry, string, error) {
	if limit <= 0 || limit > MaxListLimit {
		limit = DefaultListLimit
	}
	from := ""
	if cursor != "" {
		from = cursor + "\x00"
	}
	entries, stored, err := n.readDir(ctx, dir, from, limit+1, plus, true)
	if err != nil {
		return nil, "", err
	}
	next := ""
	if len(entries) > limit {
		entries, next = entries[:limit], stored[limit-1]
	}
	if plus {
		entries = slices.DeleteFunc(entries, func(e object.DirEntry) bool { return e.Attr == nil })
	}
	return entries, next, nil
}

// readDir reads entries whose stored names are >= from, with those names.
// Attributes that live elsewhere are fetched by partition; an entry whose
// inode went meanwhile has none.
func (n *Node) readDir(ctx context.Context, dir object.InodeID, from string, limit int, plus, shadow bool) (entries []object.DirEntry, stored []string, err error) {
	for attempt, again := 0, 0; ; attempt++ {
		var moving *namespace.TxRef
		entries, stored, moving, err = n.readDirOnce(ctx, dir, from, limit, plus, shadow)
		if err == nil && moving != nil {
			// A rename that is under way, or was left half way, shows under one name.
			if err = n.meet(ctx, *moving, dir.Partition(), attempt, nil); err == nil {
				continue
			}
		}
		if err != nil || !plus {
			return entries, stored, err
		}
		whole, err := n.fillAttrs(ctx, entries)
		if err != nil || whole || again >= maxRereads {
			return entries, stored, err
		}
		again++ // an inode went before its partition was looked at: the name may lead to another by now
	}
}

// maxRereads bounds how often a directory is read again for an inode that is gone:
// it may be gone for good, and its name yet to be mended.
const maxRereads = 5

func (n *Node) readDirOnce(ctx context.Context, dir object.InodeID, from string, limit int, plus, shadow bool) (entries []object.DirEntry, stored []string, moving *namespace.TxRef, err error) {
	err = n.inView(ctx, dir.Partition(), func(v *namespace.View) error {
		ino, err := v.Inode(dir)
		if err != nil {
			return err
		}
		if !ino.IsDir() {
			return object.Errorf(object.KindNotDirectory, "it is not a directory")
		}
		return v.ReadDir(dir, from, plus, shadow, func(s string, e object.DirEntry, tx *namespace.TxRef) bool {
			entries, stored, moving = append(entries, e), append(stored, s), tx
			return len(entries) < limit && tx == nil
		})
	})
	return entries, stored, moving, err
}

// fillAttrs reads the inodes that live in other partitions; whole is false when one
// was not there any more.
func (n *Node) fillAttrs(ctx context.Context, entries []object.DirEntry) (whole bool, err error) {
	whole = true
	elsewhere := map[object.PartitionID][]int{}
	for i, e := range entries {
		if e.Attr == nil {
			elsewhere[e.Inode.Partition()] = append(elsewhere[e.Inode.Partition()], i)
		}
	}
	for part, list := range elsewhere {
		err := n.inView(ctx, part, func(v *namespace.View) error {
			for _, i := range list {
				ino, err := v.Inode(entries[i].Inode)
				if err != nil && !object.IsKind(err, object.KindStale) {
					return err
				}
				entries[i].Attr = ino
				whole = whole && ino != nil
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	return whole, nil
}

// Create makes a new node (mkdir, mknod, symlink, open with O_CREAT). When the
// name is taken: exclusive, or not a regular file → KindExists; else the
// inode that is there, with created=false.
func (n *Node) Create(ctx context.Context, dir object.InodeID, name string, node NewNode, exclusive bool) (*object.Inode, bool, error) {
	if err := checkNode(name, node); err != nil {
		return nil, false, err
	}
	if node.Type == object.TypeDirectory {
		ino, err := n.mkdir(ctx, dir, name, node)
		return ino, err == nil, err
	}
	for attempt := 0; ; attempt++ {
		r, err := n.put(ctx, dir, name, newInode(node.Type, node), node.Umasked, namespace.Body{})
		if err == nil {
			return r.Inode, true, nil
		}
		if !object.IsKind(err, object.KindExists) || exclusive || node.Type != object.TypeRegular {
			return nil, false, err
		}
		ino, lerr := alive(n.Lookup(ctx, dir, name))
		switch {
		case object.IsKind(lerr, object.KindNotFound) && attempt < 10 && token(ctx) == nil:
			continue // it went between the two
		case lerr != nil:
			return nil, false, lerr
		case ino.IsDir():
			return nil, false, object.Errorf(object.KindExists, "a directory of this name exists")
		}
		return ino, false, nil
	}
}

func checkNode(name string, node NewNode) error {
	if err := checkName(name); err != nil {
		return err
	}
	switch {
	case node.Type < object.TypeRegular || node.Type > object.TypeBlockDevice:
		return object.Errorf(object.KindInvalid, "there is no file type %d", node.Type)
	case node.Type == object.TypeSymlink && (node.Target == "" || len(node.Target) > object.MaxSymlink):
		return object.Errorf(object.KindInvalid, "a symlink's target has 1 to %d bytes", object.MaxSymlink)
	}
	return nil
}

// put is the exclusive create of a mount.
func (n *Node) put(ctx context.Context, dir object.InodeID, name string, node object.Inode, umasked uint32, body namespace.Body) (*namespace.Result, error) {
	if dir == object.RootInode {
		return nil, object.Errorf(object.KindPermission, "only buckets (directories) can be made at the top")
	}
	return n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, dir.Partition(), &namespace.Command{Token: token(ctx),
			Put: &namespace.Put{Dir: dir, Name: name, Node: node, Body: body, Exclusive: true, Mount: true, Parental: true, Umasked: umasked}})
	})
}

func (n *Node) mkdir(ctx context.Context, dir object.InodeID, name string, node NewNode) (*object.Inode, error) {
	if dir == object.RootInode {
		ino, err := n.mkBucket(ctx, name, BucketOptions{}, node)
		if object.IsKind(err, object.KindBucketExists) {
			err = object.Errorf(object.KindExists, "the bucket exists")
		}
		return ino, err
	}
	var ino *object.Inode
	rec := newInode(object.TypeDirectory, node)
	rec.Parent = dir
	r, err := n.once(ctx, func(ctx context.Context) (_ *namespace.Result, err error) {
		rec := rec // what it inherits is looked at anew at each try
		if err := n.inheritMode(ctx, &rec, dir, node.Umasked); err != nil {
			return nil, err
		}
		ino, err = n.makeDirNode(ctx, dir, name, rec, n.spread(), 0, true)
		return nil, err
	})
	if err == nil && ino == nil {
		return n.keptDir(ctx, r, rec)
	}
	return ino, err
}

// CreateWith creates a regular file with its whole content and attributes in
// one step, durable when it returns. KindExists when the name is taken.
func (n *Node) CreateWith(ctx context.Context, dir object.InodeID, name string, node NewNode, body io.Reader, o WriteOptions) (*object.Inode, error) {
	node.Type = object.TypeRegular
	if err := checkNode(name, node); err != nil {
		return nil, err
	}
	rc, err := n.receive(ctx, dir.Partition(), dir, body, o.Size, object.MaxFileSize)
	if err != nil {
		return inodeOf(n.orKept(ctx, err))
	}
	rec := newInode(object.TypeRegular, node)
	overlay(&rec, o.Attr)
	rec.SHA256 = rc.sha256
	r, err := n.put(ctx, dir, name, rec, node.Umasked, rc.body)
	n.settleUpload(rc, r, err)
	if err != nil {
		return nil, err
	}
	return r.Inode, nil
}

// overlay applies the attributes that travel with a new file.
func overlay(i *object.Inode, a SetAttr) {
	set := func(dst, src *uint32) {
		if src != nil {
			*dst = *src
		}
	}
	set(&i.Mode, a.Mode)
	set(&i.UID, a.UID)
	set(&i.GID, a.GID)
	if a.Atime != nil {
		i.Atime = *a.Atime
	}
	if a.Mtime != nil {
		i.Mtime = *a.Mtime
	}
	if a.ContentType != nil {
		i.ContentType = *a.ContentType
	}
	if a.Meta != nil {
		i.Meta = a.Meta
	}
}

// settleUpload ends an upload after the entry that was to commit it.
func (n *Node) settleUpload(rc *received, r *namespace.Result, err error) {
	switch {
	case err == nil && !r.Recalled:
		n.keep(rc)
	case err == nil:
		n.discard(rc) // an earlier attempt's body is the one that counts
	default:
		rc.uncertain = rc.uncertain || uncertain(err)
		n.discard(rc)
	}
}

// uncertain errors leave open whether the entry was, or will be, applied.
func uncertain(err error) bool {
	switch object.KindOf(err) {
	case object.KindTimeout, object.KindInternal:
		return true
	}
	return false
}

// Link gives an inode one more name.
func (n *Node) Link(ctx context.Context, ino, dir object.InodeID, name string) (*object.Inode, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if dir == object.RootInode {
		return nil, object.Errorf(object.KindPermission, "only buckets (directories) can be made at the top")
	}
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) { return n.link(ctx, ino, dir, name, 0, true) })
	if err != nil {
		return nil, err
	}
	if r.Inode == nil {
		return n.GetAttr(ctx, ino)
	}
	return r.Inode, nil
}

func (n *Node) link(ctx context.Context, ino, dir object.InodeID, name string, epoch uint64, mount bool) (*namespace.Result, error) {
	if ino.Partition() == dir.Partition() {
		return n.do(ctx, dir.Partition(), &namespace.Command{Epoch: epoch, Token: token(ctx),
			LinkHere: &namespace.LinkHere{Inode: ino, Dir: dir, Name: name, Mount: mount}})
	}
	var rec *object.Inode
	r, err := n.transact(ctx, plan{
		halves:  []half{{ino.Partition(), namespace.Half{Raise: &namespace.Raise{Inode: ino}}}},
		decider: dir.Partition(),
		epoch:   epoch,
		lazy:    true,
		decide: func(prepared []*namespace.Result) *namespace.Decide {
			rec = prepared[0].Inode
			return &namespace.Decide{PutDentry: &namespace.PutDentry{Dir: dir, Name: name, Inode: ino, Type: rec.Type, Mount: mount}}
		},
	})
	if err == nil && !r.Recalled {
		r.Inode = rec
	}
	return r, err
}

// Unlink removes a name that does not lead to a directory.
func (n *Node) Unlink(ctx context.Context, dir object.InodeID, name string) error {
	_, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, dir.Partition(), &namespace.Command{Token: token(ctx), Unlink: &namespace.Unlink{Dir: dir, Name: name, Mount: true}})
	})
	return err
}

// Rmdir removes an empty directory.
func (n *Node) Rmdir(ctx context.Context, dir object.InodeID, name string) error {
	_, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		file, sub, err := n.entry(ctx, dir, name)
		switch {
		case err != nil:
			return nil, err
		case sub == nil && file != nil:
			return nil, object.Errorf(object.KindNotDirectory, "it is not a directory")
		case sub == nil:
			return nil, object.Errorf(object.KindNotFound, "no such directory")
		}
		return n.rmdir(ctx, dir, name, sub.Inode, 0, nil, true)
	})
	return err
}

func (n *Node) rmdir(ctx context.Context, dir object.InodeID, name string, ino object.InodeID, epoch uint64, up *namespace.Cascade, mount bool) (*namespace.Result, error) {
	drop := plan{
		halves:  []half{{ino.Partition(), namespace.Half{Dead: &namespace.Dead{Dir: ino}}}},
		decider: dir.Partition(),
		epoch:   epoch,
		decide: func([]*namespace.Result) *namespace.Decide {
			return &namespace.Decide{DropDentry: &namespace.DropDentry{Dir: dir, Name: name, Inode: ino, Mount: mount, Cascade: up}}
		},
	}
	r, err := n.transact(ctx, drop)
	if !object.IsKind(err, object.KindStale) {
		return r, err
	}
	if lost, gerr := n.isGone(ctx, ino); gerr != nil || !lost {
		return r, err
	}
	// Either somebody else was faster, and the name is gone too; or it leads to an
	// inode that is gone: then there is nothing to mark, and the name can go.
	drop.halves = []half{{dir.Partition(), namespace.Half{Refs: &namespace.Refs{}}}}
	return n.transact(ctx, drop)
}

// SetXattr sets an extended attribute; create and replace as XATTR_CREATE and XATTR_REPLACE.
func (n *Node) SetXattr(ctx context.Context, ino object.InodeID, name string, value []byte, create, replace bool) error {
	return n.xattr(ctx, &namespace.SetXattr{Inode: ino, Name: name, Value: value, Create: create, Replace: replace})
}

// RemoveXattr removes an extended attribute; KindNoAttr when there is none.
func (n *Node) RemoveXattr(ctx context.Context, ino object.InodeID, name string) error {
	return n.xattr(ctx, &namespace.SetXattr{Inode: ino, Name: name, Remove: true})
}

func (n *Node) xattr(ctx context.Context, c *namespace.SetXattr) error {
	if c.Name == "" || len(c.Name) > object.MaxName {
		return object.Errorf(object.KindInvalid, "an attribute's name has 1 to %d bytes", object.MaxName)
	}
	c.ACL = c.Name == object.XattrACL || c.Name == object.XattrDefaultACL
	_, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, c.Inode.Partition(), &namespace.Command{Token: token(ctx), SetXattr: c})
	})
	return err
}

// Hold keeps files alive while a session has them open, until Release or until
// it is not renewed (by Hold of the same files) for the lease period, at this node
// or at another. All that are there are held; KindStale when one is gone already.
func (n *Node) Hold(ctx context.Context, session object.UploadID, inos []object.InodeID) error {
	var stale error
	nameless := map[object.PartitionID][]object.InodeID{}
	for _, ino := range inos {
		links, err := n.hold(ctx, session, ino)
		switch {
		case object.IsKind(err, object.KindStale):
			stale = err
		case err != nil:
			return err // an earlier hold stands as it did
		case links == 0:
			nameless[ino.Partition()] = append(nameless[ino.Partition()], ino)
		}
	}
	for id, all := range nameless {
		for list := range slices.Chunk(all, maxKeep) {
			gone, err := n.holdNameless(ctx, n.parts[id], session, list)
			if err != nil {
				return err
			}
			if gone != nil {
				stale = gone
			}
		}
	}
	return stale
}

const (
	// maxKeep bounds the inodes of one Keep entry.
	maxKeep = 1000
	// holdTries is how often a hold that runs out while it is made is made anew.
	holdTries = 5
)

// hold takes or renews one hold. links 0: the inode is there, has no name, and
// may be going: the hold is not sure yet.
func (n *Node) hold(ctx context.Context, session object.UploadID, ino object.InodeID) (links uint32, err error) {
	p, err := n.partition(ino.Partition())
	if err != nil {
		return 0, err
	}
	for range holdTries {
		var sure bool
		err := n.leased(ctx, p, func() (err error) {
			sure, err = p.pins.Hold(ctx, ino, session)
			return err
		})
		if err != nil || sure {
			return 1, err
		}
		rec, err := n.held(ctx, p, ino, session)
		if err != nil || rec.Nlink == 0 {
			return 0, err
		}
		if err = p.pins.Sure(ino, session); err == nil {
			return rec.Nlink, nil
		}
	}
	return 0, errHold(ino)
}

// held looks at an inode after it was held, and lets go of one that is not there.
func (n *Node) held(ctx context.Context, p *partition, ino object.InodeID, session object.UploadID) (*object.Inode, error) {
	rec, err := n.GetAttr(ctx, ino)
	if object.IsKind(err, object.KindStale) {
		p.pins.Release(ino, session)
	}
	return rec, err
}

func errHold(ino object.InodeID) error {
	return object.Errorf(object.KindUnavailable, "inode %s could not be held for long enough to look at it: the node is slow, try again", ino)
}

// holdNameless makes holds of one partition's inodes without names sure: an
// entry spares them from what is being reclaimed, and who is there after it stays.
// stale: one is gone.
func (n *Node) holdNameless(ctx context.Context, p *partition, session object.UploadID, inos []object.InodeID) (stale, err error) {
	for range holdTries {
		for _, ino := range inos { // from here on once more: the entry takes its time
			err := n.leased(ctx, p, func() error {
				_, err := p.pins.Hold(ctx, ino, session)
				return err
			})
			if err != nil {
				return stale, err
			}
		}
		if _, err := n.do(ctx, p.id, &namespace.Command{Keep: &namespace.Keep{Inodes: inos}}); err != nil {
			return stale, err
		}
		var again []object.InodeID
		for _, ino := range inos {
			_, err := n.held(ctx, p, ino, session)
			switch {
			case object.IsKind(err, object.KindStale):
				stale = err
			case err != nil:
				return stale, err
			case p.pins.Sure(ino, session) != nil:
				again = append(again, ino)
			}
		}
		if inos = again; len(inos) == 0 {
			return stale, nil
		}
	}
	return stale, errHold(inos[0])
}

// Release ends holds.
func (n *Node) Release(_ context.Context, session object.UploadID, inos []object.InodeID) error {
	for _, ino := range inos {
		p, err := n.partition(ino.Partition())
		if err != nil {
			return err
		}
		p.pins.Release(ino, session)
		p.touch()
	}
	return nil
}
