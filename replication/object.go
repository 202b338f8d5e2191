package replication

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Put stores the whole body as the object's new content: a new inode that one
// step swaps in. An error of body stores nothing and is returned. A key that
// ends in "/" makes an explicit directory and takes no body.
func (n *Node) Put(ctx context.Context, bucket, key string, body io.Reader, o PutOptions) (Object, error) {
	ino, err := n.putObject(ctx, bucket, key, body, o)
	if err != nil {
		return Object{}, object.WithOp(err, "put", bucket, key)
	}
	return Object{Bucket: bucket, Key: key, Inode: ino}, nil
}

func (n *Node) putObject(ctx context.Context, bucket, key string, body io.Reader, o PutOptions) (*object.Inode, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	p, err := n.locate(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	// The chunks belong to the partition that the object's directory lives in,
	// or will live in.
	owner := p.dir.Partition()
	if !p.found() {
		owner = n.spread()
	}
	rc, err := n.receive(ctx, owner, body, o.Size, n.cfg.MaxObjectSize)
	if err != nil {
		return nil, err
	}
	if p.isDir {
		n.discard(rc)
		if rc.body.Size > 0 {
			return nil, object.Errorf(object.KindInvalid, "a key that ends in \"/\" is a directory and takes no body")
		}
		return n.putMarker(ctx, bucket, key, o)
	}
	ino, err := n.commitObject(ctx, bucket, key, rc, objectNode(o, rc), cond(o.Cond), o.Mode == 0)
	return ino, err
}

// objectNode is the record of an object to be put.
func objectNode(o PutOptions, rc *received) object.Inode {
	mode := o.Mode
	if mode == 0 {
		mode = 0o644
	}
	node := newInode(object.TypeRegular, NewNode{Mode: mode, UID: o.UID, GID: o.GID})
	node.ContentType, node.ETagValue, node.Meta, node.SHA256 = o.ContentType, o.ETag, o.Meta, rc.sha256
	if !o.Mtime.IsZero() {
		node.Mtime = o.Mtime.UnixNano()
	}
	return node
}

// commitObject gives a received body its name. Whatever happens, the body is
// settled afterwards.
func (n *Node) commitObject(ctx context.Context, bucket, key string, rc *received, node object.Inode, c namespace.Cond, inherit bool) (*object.Inode, error) {
	r, err := n.once(ctx, func() (*namespace.Result, error) {
		p, err := n.locate(ctx, bucket, key)
		if err != nil {
			return nil, err
		}
		if !p.found() {
			if err := c.Check(nil); err != nil {
				return nil, err
			}
		}
		return n.withParents(ctx, &p, rc.owner, func() (*namespace.Result, error) {
			if err := n.adopt(ctx, rc, p.dir.Partition()); err != nil {
				return nil, err
			}
			return n.swap(ctx, &p, &namespace.Put{Dir: p.dir, Name: p.name, Node: node, Body: rc.body, Cond: c, Inherit: inherit})
		})
	})
	n.settleUpload(rc, r, err)
	if err != nil {
		return nil, err
	}
	return r.Inode, nil
}

// swap applies a Put. Where its conditions are about an inode of another
// partition, that is held at the version they hold for while the name changes.
func (n *Node) swap(ctx context.Context, p *place, put *namespace.Put) (*namespace.Result, error) {
	r, err := n.do(ctx, p.dir.Partition(), &namespace.Command{Epoch: p.epoch, Token: token(ctx), Put: put})
	if r == nil || r.Elsewhere == 0 {
		return r, err
	}
	held := *put
	held.Inode = r.Elsewhere
	return n.transact(ctx, plan{
		halves:  []half{{held.Inode.Partition(), namespace.Half{Hold: &namespace.Hold{Inode: held.Inode, Cond: put.Cond}}}},
		decider: p.dir.Partition(),
		epoch:   p.epoch,
		decide:  func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{Put: &held} },
	})
}

// adopt makes a received body fit for a partition that does not own its
// chunks (somebody else made the directory meanwhile): it is staged there, with
// references at the owner.
func (n *Node) adopt(ctx context.Context, rc *received, part object.PartitionID) error {
	if part == rc.owner || len(rc.chunks) == 0 {
		return nil
	}
	if rc.body.Staged {
		return object.Errorf(object.KindConflict, "the directory was made elsewhere meanwhile: send the object again")
	}
	st := &namespace.Stage{Owner: n.incarnation, Body: namespace.Body{Content: rc.body.Content, Extents: rc.body.Extents}}
	_, err := n.transact(withoutToken(ctx), plan{
		halves:  refHalves(rc.body.Extents, []object.PartitionID{rc.owner}, true),
		decider: part,
		decide:  func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{Stage: st} },
	})
	if err != nil {
		rc.uncertain = rc.uncertain || uncertain(err)
		return err
	}
	rc.body.Extents, rc.body.Staged, rc.owner = nil, true, part
	return nil
}

// swapStaged is swap with a content that was staged for it, which goes when the
// swap did not happen.
func (n *Node) swapStaged(ctx context.Context, p *place, put *namespace.Put) (*namespace.Result, error) {
	r, err := n.swap(ctx, p, put)
	if err != nil && !uncertain(err) || err == nil && r.Recalled {
		n.unstage(p.dir.Partition(), put.Body)
	}
	return r, err
}

// putMarker makes a directory explicit, and makes it first if it is missing.
func (n *Node) putMarker(ctx context.Context, bucket, key string, o PutOptions) (*object.Inode, error) {
	c := cond(o.Cond)
	r, err := n.once(ctx, func() (*namespace.Result, error) {
		p, err := n.locate(ctx, bucket, key)
		if err != nil {
			return nil, err
		}
		dir := object.InodeID(0)
		if p.found() {
			if dir, err = n.subdir(ctx, p.dir, p.name); err != nil {
				return nil, err
			}
		}
		if dir == 0 {
			if err := c.Check(nil); err != nil {
				return nil, err
			}
			p.missing = append(slices.Clone(p.missing), p.name)
		} else {
			p.chain = &namespace.Cascade{Parent: p.dir, Name: p.name, Up: p.chain}
			p.dir = dir
		}
		return n.withParents(ctx, &p, n.spread(), func() (*namespace.Result, error) {
			a := &namespace.SetAttr{Inode: p.dir, Explicit: true, Cond: c, Meta: o.Meta, SetMeta: o.Meta != nil}
			return n.do(ctx, p.dir.Partition(), &namespace.Command{Epoch: p.epoch, Token: token(ctx), SetAttr: a})
		})
	})
	if err != nil {
		return nil, err
	}
	return r.Inode, nil
}

// object finds the inode that a key names: a file, or under "dir/" an explicit
// directory.
func (n *Node) find(ctx context.Context, bucket, key string) (p place, ino object.InodeID, err error) {
	if err := checkKey(key); err != nil {
		return p, 0, err
	}
	err = n.retry(ctx, func() error {
		if p, err = n.locate(ctx, bucket, key); err != nil {
			return err
		}
		ino, err = n.named(ctx, &p)
		if p.dir == p.bucket && p.found() {
			return err // no directory on the way that could have moved
		}
		now, eerr := n.epoch(ctx)
		switch {
		case eerr != nil:
			return eerr
		case now != p.epoch:
			return again{object.Errorf(object.KindConflict, "a directory was renamed meanwhile")}
		}
		return err
	})
	return p, ino, err
}

// named is the inode of a place's own name.
func (n *Node) named(ctx context.Context, p *place) (object.InodeID, error) {
	if !p.found() {
		return 0, errNoObject()
	}
	e, err := n.oneEntry(ctx, p.dir, p.name, p.isDir)
	if object.IsKind(err, object.KindStale) || err == nil && e == nil {
		return 0, errNoObject()
	}
	if err != nil {
		return 0, err
	}
	return e.Inode, nil
}

func errNoObject() error { return object.Errorf(object.KindNotFound, "no such object") }

// OpenObject pins the object's current version for reading.
func (n *Node) OpenObject(ctx context.Context, bucket, key string) (*Reader, error) {
	var r *Reader
	err := n.retry(ctx, func() error {
		_, ino, err := n.find(ctx, bucket, key)
		if err != nil {
			return err
		}
		if r, err = n.OpenInode(ctx, ino); object.IsKind(err, object.KindStale) {
			return again{err} // replaced between the two looks
		}
		if err == nil && r.inode.Nlink == 0 {
			r.Close()
			return again{errNoObject()} // replaced: what it was may be going already
		}
		if err == nil && r.inode.Implicit {
			r.Close()
			return errNoObject()
		}
		return err
	})
	return r, object.WithOp(err, "get", bucket, key)
}

// Stat describes an object. Explicit directories answer under "dir/".
func (n *Node) Stat(ctx context.Context, bucket, key string) (Object, error) {
	var rec *object.Inode
	err := n.retry(ctx, func() error {
		_, ino, err := n.find(ctx, bucket, key)
		if err != nil {
			return err
		}
		if rec, err = n.GetAttr(ctx, ino); object.IsKind(err, object.KindStale) {
			return again{err}
		}
		if err == nil && rec.Implicit {
			return errNoObject()
		}
		return err
	})
	if err != nil {
		return Object{}, object.WithOp(err, "stat", bucket, key)
	}
	return Object{Bucket: bucket, Key: key, Inode: rec}, nil
}

// Delete removes the name; KindNotFound when there is none. Under "dir/" an
// explicit directory: it goes when it is empty, and becomes implicit otherwise
// (its marker goes, as in S3).
func (n *Node) Delete(ctx context.Context, bucket, key string, c Conditions) error {
	if err := checkKey(key); err != nil {
		return object.WithOp(err, "delete", bucket, key)
	}
	_, err := n.once(ctx, func() (*namespace.Result, error) {
		p, err := n.locate(ctx, bucket, key)
		if err != nil {
			return nil, err
		}
		if !p.found() {
			return nil, errNoObject()
		}
		if p.isDir {
			return n.deleteMarker(ctx, &p, c)
		}
		return n.deleteFile(ctx, &p, cond(c))
	})
	return object.WithOp(err, "delete", bucket, key)
}

func (n *Node) deleteFile(ctx context.Context, p *place, c namespace.Cond) (*namespace.Result, error) {
	un := &namespace.Unlink{Dir: p.dir, Name: p.name, Cond: c, Cascade: p.chain}
	r, err := n.do(ctx, p.dir.Partition(), &namespace.Command{Epoch: p.epoch, Token: token(ctx), Unlink: un})
	if object.IsKind(err, object.KindIsDirectory) {
		return r, errNoObject() // the key without "/" is not there
	}
	if r == nil || r.Elsewhere == 0 {
		return r, err
	}
	held := *un
	held.Inode = r.Elsewhere
	return n.transact(ctx, plan{
		halves:  []half{{held.Inode.Partition(), namespace.Half{Hold: &namespace.Hold{Inode: held.Inode, Cond: c}}}},
		decider: p.dir.Partition(),
		epoch:   p.epoch,
		decide:  func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{Unlink: &held} },
	})
}

func (n *Node) deleteMarker(ctx context.Context, p *place, c Conditions) (*namespace.Result, error) {
	dir, err := n.subdir(ctx, p.dir, p.name)
	if err != nil {
		return nil, err
	}
	if dir == 0 {
		return nil, errNoObject()
	}
	if cc := cond(c); !cc.Empty() {
		return nil, object.Errorf(object.KindNotSupported, "a directory cannot be deleted on a condition")
	}
	r, err := n.rmdir(ctx, p.dir, p.name, dir, p.epoch, p.chain, false)
	if !object.IsKind(err, object.KindNotEmpty) {
		return r, err
	}
	return n.do(ctx, dir.Partition(), &namespace.Command{Epoch: p.epoch, Token: token(ctx), SetAttr: &namespace.SetAttr{Inode: dir, Unmark: true}})
}

// LinkObject makes newKey a hard link to the object.
func (n *Node) LinkObject(ctx context.Context, bucket, key, newBucket, newKey string) error {
	if err := checkKey(newKey); err != nil {
		return object.WithOp(err, "link", newBucket, newKey)
	}
	_, err := n.once(ctx, func() (*namespace.Result, error) {
		_, ino, err := n.find(ctx, bucket, key)
		if err != nil {
			return nil, err
		}
		p, err := n.locate(ctx, newBucket, newKey)
		if err != nil {
			return nil, err
		}
		if p.isDir {
			return nil, object.Errorf(object.KindInvalid, "a link's key cannot end in \"/\"")
		}
		return n.withParents(ctx, &p, n.spread(), func() (*namespace.Result, error) {
			return n.link(ctx, ino, p.dir, p.name, p.epoch, false)
		})
	})
	return object.WithOp(err, "link", bucket, key)
}

// Copy makes newKey a copy that shares chunks and moves no data.
func (n *Node) Copy(ctx context.Context, bucket, key, newBucket, newKey string, o CopyOptions) (Object, error) {
	ino, err := n.copyObject(ctx, bucket, key, newBucket, newKey, o)
	if err != nil {
		return Object{}, object.WithOp(err, "copy", bucket, key)
	}
	return Object{Bucket: newBucket, Key: newKey, Inode: ino}, nil
}

// CopyOptions go with Copy.
type CopyOptions struct {
	SourceCond  Conditions // on the source, as it is when it is opened
	Cond        Conditions // on what newKey leads to
	Replace     bool       // take ContentType and Meta from here instead of the source
	ContentType string
	Meta        map[string]string
}

func (n *Node) copyObject(ctx context.Context, bucket, key, newBucket, newKey string, o CopyOptions) (*object.Inode, error) {
	if err := checkKey(newKey); err != nil {
		return nil, err
	}
	r, err := n.OpenObject(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	src := r.Inode()
	if err := o.SourceCond.check(src); err != nil {
		return nil, err
	}
	if src.Type != object.TypeRegular {
		return nil, object.Errorf(object.KindInvalid, "only regular files can be copied")
	}
	node := newInode(object.TypeRegular, NewNode{Mode: src.Mode, UID: src.UID, GID: src.GID})
	node.ContentType, node.Meta, node.SHA256, node.Xattrs = src.ContentType, src.Meta, src.SHA256, src.Xattrs
	if o.Replace {
		node.ContentType, node.Meta = o.ContentType, o.Meta
	}
	res, err := n.once(ctx, func() (*namespace.Result, error) {
		p, err := n.locate(ctx, newBucket, newKey)
		if err != nil {
			return nil, err
		}
		if p.isDir {
			return nil, object.Errorf(object.KindInvalid, "a copy's key cannot end in \"/\"")
		}
		return n.withParents(ctx, &p, src.ID.Partition(), func() (*namespace.Result, error) {
			body, err := n.share(ctx, []*Reader{r}, p.dir.Partition())
			if err != nil {
				return nil, err
			}
			return n.swapStaged(ctx, &p, &namespace.Put{Dir: p.dir, Name: p.name, Node: node, Body: body, Cond: cond(o.Cond)})
		})
	})
	if err != nil {
		return nil, err
	}
	return res.Inode, nil
}

// check judges conditions here, for reads and the source of a copy.
func (c Conditions) check(i *object.Inode) error {
	cc := cond(c)
	if err := cc.Check(i); err != nil {
		return err
	}
	if !c.IfModifiedSince.IsZero() && i.Mtime/int64(time.Second) <= c.IfModifiedSince.Unix() {
		return object.Errorf(object.KindPrecondition, "the source was not modified since")
	}
	return nil
}

// share stages, in a partition, a content that is the readers' contents one
// after another, and moves no data.
func (n *Node) share(ctx context.Context, sources []*Reader, part object.PartitionID) (namespace.Body, error) {
	body := namespace.Body{Content: newContentID()}
	for _, r := range sources {
		if err := n.shareOne(ctx, r, part, &body); err != nil {
			n.unstage(part, body)
			return body, err
		}
	}
	return body, nil
}

func (n *Node) shareOne(ctx context.Context, r *Reader, part object.PartitionID, body *namespace.Body) error {
	base := body.Size
	if base == 0 && r.inode.Content.IsZero() && r.inode.Size == int64(len(r.inline)) && len(r.inline) > 0 {
		body.Inline, body.Size = r.inline, r.inode.Size // of a single small source
		return nil
	}
	if len(body.Inline) > 0 {
		return object.Errorf(object.KindInternal, "a small part stands before another")
	}
	for off := int64(0); off < r.inode.Size; {
		exts, reach, err := r.page(ctx, off, r.inode.Size)
		if err != nil {
			return err
		}
		if err := n.stageShared(ctx, part, body, base, exts); err != nil {
			return err
		}
		off = reach
	}
	body.Size += r.inode.Size
	return nil
}

// stageShared stages extents of committed chunks, shifted by base.
func (n *Node) stageShared(ctx context.Context, part object.PartitionID, body *namespace.Body, base int64, exts []object.Extent) error {
	if len(exts) == 0 {
		return nil
	}
	for i := range exts {
		exts[i].Offset += base
	}
	st := &namespace.Stage{Owner: n.incarnation, Body: namespace.Body{Content: body.Content, Extents: exts, Staged: body.Staged, Existing: true}}
	var err error
	if owners := foreignOwners(exts, part); len(owners) > 0 {
		_, err = n.transact(withoutToken(ctx), plan{halves: refHalves(exts, owners, false), decider: part, lazy: true,
			decide: func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{Stage: st} }})
	} else {
		_, err = n.do(ctx, part, &namespace.Command{Stage: st})
	}
	if err == nil {
		body.Staged = true
	}
	return err
}

// withoutToken keeps a step that is not the mutation itself from taking its token.
func withoutToken(ctx context.Context) context.Context {
	return context.WithValue(ctx, tokenKey{}, Token{})
}

// unstage gives a staged content up.
func (n *Node) unstage(part object.PartitionID, body namespace.Body) {
	if !body.Staged {
		return
	}
	ctx, cancel := n.detached()
	defer cancel()
	if _, err := n.propose(ctx, part, &namespace.Command{Unstage: &namespace.Unstage{Content: body.Content}}); err != nil {
		n.log.Warn("a staged content is left to the next start", "content", body.Content, "err", err)
	}
}
