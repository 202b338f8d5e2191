package replication

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
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
	isDir := strings.HasSuffix(key, "/")
	owner, like := n.spread(), object.RootInode // of no chunks, where the body is small: it is not looked for
	if isDir || o.Size < 0 || o.Size > object.MaxInline {
		p, err := n.locate(ctx, bucket, key)
		if err != nil {
			return inodeOf(n.orKept(ctx, err))
		}
		// The chunks belong to the partition that the object's directory lives in,
		// or will live in; what is missing will be like the directory above it.
		if like = p.dir; p.found() {
			owner = p.dir.Partition()
		}
	}
	rc, err := n.receive(ctx, owner, like, body, o.Size, n.cfg.MaxObjectSize)
	if err != nil {
		return inodeOf(n.orKept(ctx, err))
	}
	if isDir {
		n.discard(rc)
		if rc.body.Size > 0 {
			return nil, object.Errorf(object.KindInvalid, "a key that ends in \"/\" is a directory and takes no body")
		}
		return n.putMarker(ctx, bucket, key, o)
	}
	ino, err := n.commitObject(ctx, bucket, key, rc, objectNode(o, rc), cond(o.Cond), o.Mode == 0)
	return ino, err
}

func inodeOf(r *namespace.Result, err error) (*object.Inode, error) {
	if err != nil {
		return nil, err
	}
	return r.Inode, nil
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
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
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

// swap applies a Put. Where its conditions, or what it inherits, are about an
// inode of another partition, that is held as it is while the name changes. If
// that is gone, and the name led to it all the same, an unconditional Put
// replaces the name and inherits nothing.
func (n *Node) swap(ctx context.Context, p *place, put *namespace.Put) (*namespace.Result, error) {
	put.Ask = put.Inherit
	send := func() (*namespace.Result, error) {
		return n.do(ctx, p.dir.Partition(), &namespace.Command{Epoch: p.epoch, Token: token(ctx), Put: put})
	}
	return n.judged(ctx, send, func(id object.InodeID) (*namespace.Result, error) {
		held := *put
		held.Inode, held.Inherit, held.Ask = id, false, false
		hold := &namespace.Hold{Inode: id, Cond: put.Cond, Still: put.Inherit}
		return n.transact(ctx, plan{
			halves:  []half{{id.Partition(), namespace.Half{Hold: hold}}},
			decider: p.dir.Partition(),
			epoch:   p.epoch,
			decide: func(prepared []*namespace.Result) *namespace.Decide {
				if was := prepared[0].Inode; put.Inherit && was.Type == object.TypeRegular {
					held.Node.Mode, held.Node.UID, held.Node.GID = was.Mode, was.UID, was.GID
				}
				return &namespace.Decide{Put: &held}
			},
		})
	}, func(id object.InodeID) (*namespace.Result, error) {
		if !put.Cond.Empty() {
			return nil, errDangling(id)
		}
		put.Ask = false
		return send()
	})
}

// judged sends an entry about a name. Where it answers that the name's inode
// lives elsewhere and is to be asked first, held does both; dangling is called
// instead where that inode is gone and the name leads to it nevertheless.
func (n *Node) judged(ctx context.Context, send func() (*namespace.Result, error), held, dangling func(object.InodeID) (*namespace.Result, error)) (*namespace.Result, error) {
	r, err := send()
	if r == nil || r.Elsewhere == 0 {
		return r, err
	}
	id := r.Elsewhere
	if r, err = held(id); !errors.Is(err, errAgain) {
		return r, err
	}
	lost, gerr := n.isGone(ctx, id)
	if gerr != nil || !lost {
		return r, err
	}
	// It is gone: does the name lead there still?
	r, err = send()
	if r == nil || r.Elsewhere == 0 {
		return r, err
	}
	if r.Elsewhere != id {
		return r, again{err} // replaced meanwhile
	}
	return dangling(id)
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
		if uncertain(err) {
			rc.uncertain = true
			n.leftovers.add(part, rc.body.Content)
		}
		return err
	}
	rc.body.Extents, rc.body.Staged, rc.owner = nil, true, part
	return nil
}

// swapStaged is swap with a content that was staged for it, which goes when the
// swap did not happen.
func (n *Node) swapStaged(ctx context.Context, p *place, put *namespace.Put) (*namespace.Result, error) {
	r, err := n.swap(ctx, p, put)
	switch {
	case err != nil && uncertain(err):
		n.leftovers.add(p.dir.Partition(), put.Body.Content)
	case err != nil || r.Recalled:
		n.unstage(p.dir.Partition(), put.Body)
	}
	return r, err
}

// putMarker makes a directory explicit, and makes it first if it is missing.
func (n *Node) putMarker(ctx context.Context, bucket, key string, o PutOptions) (*object.Inode, error) {
	c := cond(o.Cond)
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
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

// Delete removes the name; KindNotFound when there is none. Under "dir/" an
// explicit directory: it goes when it is empty, and becomes implicit otherwise
// (its marker goes, as in S3).
func (n *Node) Delete(ctx context.Context, bucket, key string, c Conditions) error {
	if err := checkKey(key); err != nil {
		return object.WithOp(err, "delete", bucket, key)
	}
	_, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
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
	return n.judged(ctx, func() (*namespace.Result, error) {
		r, err := n.do(ctx, p.dir.Partition(), &namespace.Command{Epoch: p.epoch, Token: token(ctx), Unlink: un})
		if object.IsKind(err, object.KindIsDirectory) {
			return r, errNoObject() // the key without "/" is not there
		}
		return r, err
	}, func(id object.InodeID) (*namespace.Result, error) {
		held := *un
		held.Inode = id
		return n.transact(ctx, plan{
			halves:  []half{{id.Partition(), namespace.Half{Hold: &namespace.Hold{Inode: id, Cond: c}}}},
			decider: p.dir.Partition(),
			epoch:   p.epoch,
			decide:  func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{Unlink: &held} },
		})
	}, func(id object.InodeID) (*namespace.Result, error) { return nil, errDangling(id) })
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
	_, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		src, err := n.find(ctx, bucket, key, wantName)
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
			return n.link(ctx, src.ino, p.dir, p.name, p.epoch, false)
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
	if r, err := n.recalled(ctx); err != nil || r != nil {
		if err == nil {
			err = r.Err()
		}
		return inodeOf(r, err) // the source may be gone by now
	}
	r, err := n.OpenObject(ctx, bucket, key)
	if err != nil {
		return inodeOf(n.orKept(ctx, err))
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
	res, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
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
