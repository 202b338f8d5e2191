package replication

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// checkKey refuses keys that no door could give back.
func checkKey(key string) error {
	switch {
	case key == "":
		return object.Errorf(object.KindInvalid, "the key is empty: name an object")
	case len(key) > object.MaxKey:
		return object.Errorf(object.KindNameTooLong, "the key has %d bytes: %d are possible", len(key), object.MaxKey)
	case strings.ContainsRune(key, 0):
		return object.Errorf(object.KindInvalid, "the key contains a NUL byte")
	case !utf8.ValidString(key):
		return object.Errorf(object.KindInvalid, "the key is not valid UTF-8")
	}
	return nil
}

// checkName refuses a name that no filesystem takes.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return object.Errorf(object.KindInvalid, "%q is not the name of a file", name)
	case len(name) > object.MaxName:
		return object.Errorf(object.KindNameTooLong, "the name has %d bytes: %d are possible", len(name), object.MaxName)
	case strings.ContainsAny(name, "/\x00"):
		return object.Errorf(object.KindInvalid, "a name contains neither \"/\" nor NUL")
	}
	return nil
}

// checkBucketName applies S3's rules for bucket names.
func checkBucketName(name string) error {
	bad := func(why string) error {
		return object.Errorf(object.KindInvalid, "%q is not a bucket name: %s (3 to 63 of a-z, 0-9, \"-\" and \".\", beginning and ending with a letter or digit)", name, why)
	}
	if len(name) < 3 || len(name) > 63 {
		return bad("wrong length")
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || i == len(name)-1 || c != '-' && c != '.') {
			return bad("wrong character")
		}
	}
	if strings.Contains(name, "..") || strings.Contains(name, ".-") || strings.Contains(name, "-.") {
		return bad("\".\" must stand between letters or digits")
	}
	return nil
}

// place is where a key's last component belongs.
type place struct {
	epoch   uint64
	bucket  object.InodeID // its root directory
	dir     object.InodeID // the deepest directory that exists
	missing []string       // directories below it that do not, in order
	name    string         // the last component; "" for a bucket's root
	isDir   bool           // the key ended in "/"
	// chain says where dir hangs, so that it can vanish if it is implicit.
	chain *namespace.Cascade
}

// found reports whether the directory that would hold the name exists.
func (p *place) found() bool { return len(p.missing) == 0 }

// locate walks a key from its bucket. The rename epoch is read before the
// first step: a directory that is renamed meanwhile is noticed where the
// operation is applied.
func (n *Node) locate(ctx context.Context, bucket, key string) (p place, err error) {
	if p.epoch, p.bucket, err = n.root(ctx, bucket); err != nil {
		return p, err
	}
	p.dir, p.chain = p.bucket, nil
	rest, isDir := strings.CutSuffix(key, "/")
	p.isDir = isDir
	comps := strings.Split(rest, "/")
	p.name = comps[len(comps)-1]
	for i, c := range comps[:len(comps)-1] {
		sub, err := n.subdir(ctx, p.dir, c)
		if err != nil {
			return p, err
		}
		if sub == 0 {
			p.missing = comps[i : len(comps)-1]
			return p, nil
		}
		p.chain = &namespace.Cascade{Parent: p.dir, Name: c, Up: p.chain}
		p.dir = sub
	}
	return p, nil
}

// root is the rename epoch, and then a bucket's root directory.
func (n *Node) root(ctx context.Context, bucket string) (epoch uint64, root object.InodeID, err error) {
	here, err := n.current(ctx, object.Control)
	if err != nil {
		return 0, 0, err
	}
	if here != nil {
		if epoch, ok := here.Epoch(); ok {
			if root, ok = here.Dir(object.RootInode, bucket); ok {
				return epoch, root, nil
			}
		}
	}
	v, err := n.view(ctx, object.Control)
	if err != nil {
		return 0, 0, err
	}
	defer v.Close()
	if epoch, err = v.Epoch(); err != nil {
		return 0, 0, err
	}
	sub, err := v.LookupOne(object.RootInode, bucket, true)
	if err != nil {
		return 0, 0, err
	}
	if sub == nil {
		return 0, 0, &object.Error{Kind: object.KindBucketNotFound, Bucket: bucket, Err: errors.New("there is no bucket " + bucket + ": create it first")}
	}
	return epoch, sub.Inode, nil
}

// unmoved is nil while the rename epoch is still the one that a place was
// resolved under.
func (n *Node) unmoved(ctx context.Context, p *place) error {
	here, err := n.current(ctx, object.Control)
	if err != nil {
		return err
	}
	epoch, ok := uint64(0), false
	if here != nil {
		epoch, ok = here.Epoch()
	}
	if !ok {
		if epoch, err = n.epoch(ctx); err != nil {
			return err
		}
	}
	if epoch != p.epoch {
		return again{object.Errorf(object.KindConflict, "a directory was renamed meanwhile")}
	}
	return nil
}

// subdir is the directory under a name, or 0.
func (n *Node) subdir(ctx context.Context, dir object.InodeID, name string) (object.InodeID, error) {
	here, err := n.current(ctx, dir.Partition())
	if err != nil {
		return 0, err
	}
	if here != nil {
		if sub, ok := here.Dir(dir, name); ok {
			return sub, nil
		}
	}
	sub, err := n.oneEntry(ctx, dir, name, true, nil)
	switch {
	case object.IsKind(err, object.KindStale):
		return 0, nil // it vanished meanwhile; what it held did too
	case err != nil || sub == nil:
		return 0, err
	}
	return sub.Inode, nil
}

// oneEntry finds a name as a directory or as something else. An entry that is
// being moved is waited for: nobody resolves through it. look, which may be nil,
// gets it while the view that showed it stands; the last call counts.
func (n *Node) oneEntry(ctx context.Context, dir object.InodeID, name string, isDir bool, look func(v *namespace.View, e *namespace.Entry) error) (e *namespace.Entry, err error) {
	for attempt := 0; ; attempt++ {
		err := n.inView(ctx, dir.Partition(), func(v *namespace.View) (err error) {
			e, err = v.LookupOne(dir, name, isDir)
			if err != nil || e == nil || e.Tx != nil || look == nil {
				return err
			}
			return look(v, e)
		})
		if err != nil || e == nil || e.Tx == nil {
			return e, err
		}
		if err := n.meet(ctx, *e.Tx, dir.Partition(), attempt, nil); err != nil {
			return nil, err
		}
	}
}

// entry finds a name as a file and as a directory, waiting out what is being moved.
func (n *Node) entry(ctx context.Context, dir object.InodeID, name string) (file, sub *namespace.Entry, err error) {
	for attempt := 0; ; attempt++ {
		err := n.inView(ctx, dir.Partition(), func(v *namespace.View) (err error) {
			file, sub, err = v.Lookup(dir, name)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		var ref *namespace.TxRef
		if file != nil {
			ref = file.Tx
		}
		if sub != nil && sub.Tx != nil {
			ref = sub.Tx
		}
		if ref == nil {
			return file, sub, nil
		}
		if err := n.meet(ctx, *ref, dir.Partition(), attempt, nil); err != nil {
			return nil, nil, err
		}
	}
}

// entryUnder is entry in a directory that a path led to under an epoch, and
// errAgain when it vanished meanwhile: the path is to be walked anew. With epoch 0
// the directory was named by its number, and KindStale says that it is gone.
func (n *Node) entryUnder(ctx context.Context, epoch uint64, dir object.InodeID, name string) (file, sub *namespace.Entry, err error) {
	file, sub, err = n.entry(ctx, dir, name)
	if epoch != 0 && object.IsKind(err, object.KindStale) {
		return nil, nil, again{err}
	}
	return file, sub, err
}

// makeMissing makes the implicit directories of a place; the last of them in
// partition last, so that it owns chunks that were uploaded for it.
func (n *Node) makeMissing(ctx context.Context, p *place, last object.PartitionID) error {
	for len(p.missing) > 0 {
		part := n.spread()
		if len(p.missing) == 1 {
			part = last
		}
		name := p.missing[0]
		now := time.Now().UnixNano()
		node := object.Inode{Type: object.TypeDirectory, Mode: 0o755, Implicit: true, Parent: p.dir,
			Atime: now, Mtime: now, Ctime: now, Btime: now}
		// Not the mutation itself: it must not take the client's token.
		ino, err := n.makeDir(withoutToken(ctx), p.dir, name, node, part, p.epoch, false)
		if object.IsKind(err, object.KindExists) {
			if ino, err = n.subdir(ctx, p.dir, name); err == nil && ino == 0 {
				return again{object.Errorf(object.KindConflict, "a directory vanished meanwhile")}
			}
		}
		if err != nil {
			return err
		}
		p.chain = &namespace.Cascade{Parent: p.dir, Name: name, Up: p.chain}
		p.dir, p.missing = ino, p.missing[1:]
	}
	return nil
}

// withParents runs op with the place's missing directories made, the last of
// them in partition last; what was made for an op that fails goes again.
func (n *Node) withParents(ctx context.Context, p *place, last object.PartitionID, op func() (*namespace.Result, error)) (*namespace.Result, error) {
	if p.found() {
		return op()
	}
	err := n.makeMissing(ctx, p, last)
	var r *namespace.Result
	if err == nil {
		r, err = op()
	}
	if err != nil {
		n.tidy(p)
	}
	return r, err
}

// tidy removes implicit directories of a place that an operation made, or came
// to, and left empty: they exist for their entries only.
func (n *Node) tidy(p *place) {
	ctx, cancel := n.detached()
	defer cancel()
	dir := p.dir
	for c := p.chain; c != nil; c = c.Up {
		_, err := n.transact(ctx, plan{
			halves:  []half{{dir.Partition(), namespace.Half{Dead: &namespace.Dead{Dir: dir, Implicit: true}}}},
			decider: c.Parent.Partition(),
			decide: func([]*namespace.Result) *namespace.Decide {
				return &namespace.Decide{DropDentry: &namespace.DropDentry{Dir: c.Parent, Name: c.Name, Inode: dir, Cascade: c.Up}}
			},
		})
		if err != nil {
			return
		}
		dir = c.Parent
	}
}

// makeDir is mkdir: the inode first, then the dentry, which decides.
func (n *Node) makeDir(ctx context.Context, dir object.InodeID, name string, node object.Inode, part object.PartitionID, epoch uint64, mount bool) (object.InodeID, error) {
	ino, err := n.makeDirNode(ctx, dir, name, node, part, epoch, mount)
	if err != nil {
		return 0, err
	}
	return ino.ID, nil
}

func (n *Node) makeDirNode(ctx context.Context, dir object.InodeID, name string, node object.Inode, part object.PartitionID, epoch uint64, mount bool) (*object.Inode, error) {
	if err := n.inherit(ctx, &node, dir); err != nil {
		return nil, err
	}
	var born *object.Inode
	r, err := n.transact(ctx, plan{
		halves:  []half{{part, namespace.Half{Birth: &namespace.Birth{Node: node}}}},
		decider: dir.Partition(),
		epoch:   epoch,
		lazy:    true,
		decide: func(prepared []*namespace.Result) *namespace.Decide {
			born = prepared[0].Inode
			return &namespace.Decide{PutDentry: &namespace.PutDentry{Dir: dir, Name: name, Inode: born.ID, Type: object.TypeDirectory, Mount: mount,
				Inherits: dir != object.RootInode, Like: node.Scheme}}
		},
	})
	switch {
	case err != nil:
		return nil, err
	case r.Recalled:
		return n.keptDir(ctx, r, node)
	}
	return born, nil
}

func cond(c Conditions) namespace.Cond {
	out := namespace.Cond{Match: c.IfMatch, NoneMatch: c.IfNoneMatch}
	if !c.IfUnmodifiedSince.IsZero() {
		out.NotAfter = c.IfUnmodifiedSince.UnixNano()
	}
	return out
}
