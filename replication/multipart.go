package replication

import (
	"context"
	"encoding/hex"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A multipart upload lives in the partition that its chunks belong to, which
// its id names: four hexadecimal digits, then the upload's own id.

func uploadName(p object.PartitionID, id object.UploadID) string {
	return hex.EncodeToString([]byte{byte(p >> 8), byte(p)}) + id.String()
}

func parseUploadName(s string) (p object.PartitionID, id object.UploadID, err error) {
	bad := object.Errorf(object.KindNotFound, "no such multipart upload")
	if len(s) < 4 {
		return 0, id, bad
	}
	v, err := strconv.ParseUint(s[:4], 16, 16)
	if err != nil {
		return 0, id, bad
	}
	if id, err = object.ParseUploadID(s[4:]); err != nil {
		return 0, id, bad
	}
	return object.PartitionID(v), id, nil
}

// CreateUpload begins a multipart upload.
func (n *Node) CreateUpload(ctx context.Context, bucket, key string, o PutOptions) (Upload, error) {
	up, err := n.createUpload(ctx, bucket, key, o)
	return up, object.WithOp(err, "create upload", bucket, key)
}

func (n *Node) createUpload(ctx context.Context, bucket, key string, o PutOptions) (Upload, error) {
	if err := checkKey(key); err != nil {
		return Upload{}, err
	}
	p, err := n.locate(ctx, bucket, key)
	if err != nil {
		return uploadOf(n.orKept(ctx, err))
	}
	if p.isDir {
		return Upload{}, object.Errorf(object.KindInvalid, "a key that ends in \"/\" is a directory and takes no body")
	}
	part := p.dir.Partition()
	if !p.found() {
		part = n.spread()
	}
	id := newUploadID()
	node := objectNode(o, &received{})
	rec := namespace.UploadRec{Bucket: p.bucket, Name: bucket, Key: key, Started: time.Now().UnixNano(), Node: node, Inherit: o.Mode == 0}
	return uploadOf(n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, part, &namespace.Command{Token: token(ctx), NewUpload: &namespace.NewUpload{ID: id, Part: part, Rec: rec}})
	}))
}

// uploadOf is the upload that an entry began, maybe that of an earlier attempt.
func uploadOf(r *namespace.Result, err error) (Upload, error) {
	if err != nil {
		return Upload{}, err
	}
	if r.Upload == nil {
		return Upload{}, object.Errorf(object.KindConflict, "the token was used for another change")
	}
	u := r.Upload
	return Upload{ID: uploadName(u.Part, u.ID), Bucket: u.Rec.Name, Key: u.Rec.Key, Started: time.Unix(0, u.Rec.Started)}, nil
}

// upload finds an upload and checks that it is the one for this key.
func (n *Node) upload(ctx context.Context, bucket, key, name string) (part object.PartitionID, id object.UploadID, rec *namespace.UploadRec, err error) {
	if part, id, err = parseUploadName(name); err != nil {
		return
	}
	err = n.inView(ctx, part, func(v *namespace.View) (err error) {
		rec, err = v.Upload(id)
		return err
	})
	if object.IsKind(err, object.KindStale) || err == nil && (rec.Key != key || rec.Name != bucket) {
		err = object.Errorf(object.KindNotFound, "no such multipart upload of this key")
	}
	return
}

// PutPart stores or replaces one part. size -1: unknown.
func (n *Node) PutPart(ctx context.Context, bucket, key, upload string, number int, body io.Reader, size int64) (Part, error) {
	p, err := n.putPart(ctx, bucket, key, upload, number, body, size)
	return p, object.WithOp(err, "put part", bucket, key)
}

func (n *Node) putPart(ctx context.Context, bucket, key, upload string, number int, body io.Reader, size int64) (Part, error) {
	if number < 1 || number > namespace.MaxParts {
		return Part{}, object.Errorf(object.KindInvalid, "part numbers go from 1 to %d", namespace.MaxParts)
	}
	part, id, rec, err := n.upload(ctx, bucket, key, upload)
	if err != nil {
		return partOf(n.orKept(ctx, err))
	}
	rc, err := n.receive(ctx, part, rec.Bucket, body, size, n.cfg.MaxObjectSize)
	if err != nil {
		return Part{}, err
	}
	if len(rc.body.Inline) > 0 { // a part is a content, whatever its size
		rc.body.Content = newContentID()
		rc.body.Extents = []object.Extent{{Length: rc.body.Size, Data: rc.body.Inline}}
		rc.body.Inline = nil
	}
	made := namespace.PartRec{Number: number, Size: rc.body.Size, ETag: hex.EncodeToString(rc.sha256[:16]), SHA256: rc.sha256, Mtime: time.Now().UnixNano()}
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, part, &namespace.Command{Token: token(ctx), PutPart: &namespace.PutPart{Upload: id, Part: made, Body: rc.body}})
	})
	n.settleUpload(rc, r, err)
	return partOf(r, err)
}

// partOf is the part that an entry put, maybe that of an earlier attempt.
func partOf(r *namespace.Result, err error) (Part, error) {
	if err != nil {
		return Part{}, err
	}
	if r.Part == nil {
		return Part{}, object.Errorf(object.KindConflict, "the token was used for another change")
	}
	return asPart(*r.Part), nil
}

func asPart(r namespace.PartRec) Part {
	return Part{Number: r.Number, Size: r.Size, ETag: r.ETag, SHA256: r.SHA256, Modified: time.Unix(0, r.Mtime)}
}

// Parts lists up to limit parts behind a number.
func (n *Node) Parts(ctx context.Context, bucket, key, upload string, after, limit int) ([]Part, error) {
	part, id, _, err := n.upload(ctx, bucket, key, upload)
	if err != nil {
		return nil, object.WithOp(err, "list parts", bucket, key)
	}
	recs, err := n.partRecs(ctx, part, id, after, limit)
	list := make([]Part, len(recs))
	for i, r := range recs {
		list[i] = asPart(r)
	}
	return list, err
}

func (n *Node) partRecs(ctx context.Context, part object.PartitionID, id object.UploadID, after, limit int) (recs []namespace.PartRec, err error) {
	if limit <= 0 || limit > namespace.MaxParts {
		limit = DefaultListLimit
	}
	err = n.inView(ctx, part, func(v *namespace.View) (err error) {
		recs, err = v.Parts(id, after, limit)
		return err
	})
	return recs, err
}

// Uploads lists up to limit uploads of a bucket in key order, behind a key.
func (n *Node) Uploads(ctx context.Context, bucket, prefix, after string, limit int) ([]Upload, error) {
	b, err := n.Bucket(ctx, bucket)
	if err != nil {
		return nil, err
	}
	if limit <= 0 || limit > MaxListLimit {
		limit = DefaultListLimit
	}
	var list []Upload
	for part := range n.ids(firstData) {
		err := n.inView(ctx, part, func(v *namespace.View) error {
			return v.Uploads(object.UploadID{}, func(id object.UploadID, r namespace.UploadRec) bool {
				if !r.Ended && r.Bucket == b.Root && strings.HasPrefix(r.Key, prefix) && r.Key > after {
					list = append(list, Upload{ID: uploadName(part, id), Bucket: bucket, Key: r.Key, Started: time.Unix(0, r.Started)})
				}
				if len(list) >= 2*limit { // keep the first ones only: bounded memory
					list = firstUploads(list, limit)
				}
				return true
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return firstUploads(list, limit), nil
}

func firstUploads(list []Upload, limit int) []Upload {
	sort.Slice(list, func(i, j int) bool {
		if list[i].Key != list[j].Key {
			return list[i].Key < list[j].Key
		}
		return list[i].ID < list[j].ID
	})
	return list[:min(len(list), limit)]
}

// CompleteUpload makes the object from the parts, in the given order (numbers
// ascending; ETags, where given, must be the parts'). No data is moved.
func (n *Node) CompleteUpload(ctx context.Context, bucket, key, upload string, parts []Part, c Conditions) (Object, error) {
	ino, err := n.completeUpload(ctx, bucket, key, upload, parts, c)
	if err != nil {
		return Object{}, object.WithOp(err, "complete upload", bucket, key)
	}
	return Object{Bucket: bucket, Key: key, Inode: ino}, nil
}

func (n *Node) completeUpload(ctx context.Context, bucket, key, upload string, parts []Part, c Conditions) (*object.Inode, error) {
	if r, err := n.recalled(ctx); err != nil || r != nil {
		if err == nil {
			err = r.Err()
		}
		return inodeOf(r, err)
	}
	part, id, rec, err := n.upload(ctx, bucket, key, upload)
	if err != nil {
		return inodeOf(n.orKept(ctx, err))
	}
	sources, err := n.chosenParts(ctx, part, id, parts)
	if err != nil {
		return nil, err
	}
	node := rec.Node
	now := time.Now().UnixNano()
	node.Atime, node.Mtime, node.Ctime, node.Btime = now, now, now, now
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		p, err := n.locate(ctx, bucket, key)
		if err != nil {
			return nil, err
		}
		return n.withParents(ctx, &p, part, func() (*namespace.Result, error) {
			body, err := n.shareParts(ctx, part, id, sources, p.dir.Partition())
			if err != nil {
				return nil, err
			}
			return n.swapStaged(ctx, &p, &namespace.Put{Dir: p.dir, Name: p.name, Node: node, Body: body, Cond: cond(c), Inherit: rec.Inherit})
		})
	})
	if err != nil {
		return nil, err
	}
	if err := n.endUpload(part, id); err != nil {
		n.log.Warn("a completed upload's parts are left behind", "upload", upload, "err", err)
	}
	return r.Inode, nil
}

// chosenParts are the records of the parts that a completion names.
func (n *Node) chosenParts(ctx context.Context, part object.PartitionID, id object.UploadID, parts []Part) ([]namespace.PartRec, error) {
	if len(parts) == 0 {
		return nil, object.Errorf(object.KindInvalid, "no parts are named: list those to put together")
	}
	recs, err := n.partRecs(ctx, part, id, 0, namespace.MaxParts)
	if err != nil {
		return nil, err
	}
	byNumber := map[int]namespace.PartRec{}
	for _, r := range recs {
		byNumber[r.Number] = r
	}
	var out []namespace.PartRec
	for i, p := range parts {
		r, ok := byNumber[p.Number]
		switch {
		case i > 0 && p.Number <= parts[i-1].Number:
			return nil, object.Errorf(object.KindInvalid, "part %d is named behind part %d: name them in ascending order", p.Number, parts[i-1].Number)
		case !ok:
			return nil, object.Errorf(object.KindInvalid, "part %d was not uploaded", p.Number)
		case p.ETag != "" && strings.Trim(p.ETag, `"`) != r.ETag:
			return nil, object.Errorf(object.KindInvalid, "part %d is not the one with ETag %s: it was replaced", p.Number, p.ETag)
		}
		out = append(out, r)
	}
	return out, nil
}

// shareParts stages the parts' extents one after another. The upload keeps the
// parts, and so their chunks, until it ends.
func (n *Node) shareParts(ctx context.Context, from object.PartitionID, id object.UploadID, parts []namespace.PartRec, part object.PartitionID) (body namespace.Body, err error) {
	body.Content = newContentID()
	var batch []object.Extent
	flush := func() error {
		err := n.stageShared(ctx, part, &body, 0, batch)
		batch = batch[:0:0]
		return err
	}
	defer func() {
		if err != nil {
			n.unstage(part, body)
		}
	}()
	data := 0
	for _, pr := range parts {
		covered := int64(0)
		for off := int64(0); off < pr.Size; {
			var exts []object.Extent
			next := int64(-1)
			err := n.inView(ctx, from, func(v *namespace.View) (err error) {
				if err := v.HasPart(id, pr.Number, pr.Content); err != nil {
					return err // completed, aborted or replaced meanwhile
				}
				exts, next, err = v.Extents(pr.Content, ^uint64(0)-1, off, pr.Size, namespace.MaxExtents/2)
				return err
			})
			if err != nil {
				return body, err
			}
			for _, e := range exts {
				if e.Offset != covered {
					return body, object.Errorf(object.KindCorrupt, "part %d has a gap at %d: upload it again", pr.Number, covered)
				}
				covered = e.End()
				if len(batch) == namespace.MaxExtents || data+len(e.Data) > 256<<10 {
					if err := flush(); err != nil {
						return body, err
					}
					data = 0
				}
				e.Offset += body.Size
				data += len(e.Data)
				batch = append(batch, e)
			}
			if off = next; next < 0 {
				break
			}
		}
		if covered != pr.Size {
			return body, object.Errorf(object.KindCorrupt, "part %d ends at %d of %d bytes: upload it again", pr.Number, covered, pr.Size)
		}
		body.Size += pr.Size
	}
	return body, flush()
}

func (n *Node) endUpload(part object.PartitionID, id object.UploadID) error {
	ctx, cancel := n.detached()
	defer cancel()
	_, err := n.endUploadFor(ctx, part, id)
	return err
}

func (n *Node) endUploadFor(ctx context.Context, part object.PartitionID, id object.UploadID) (*namespace.Result, error) {
	for {
		r, err := n.do(ctx, part, &namespace.Command{Token: token(ctx), EndUpload: &namespace.EndUpload{Upload: id}})
		if err != nil || !r.Partial {
			return r, err
		}
	}
}

// AbortUpload forgets an upload and its parts.
func (n *Node) AbortUpload(ctx context.Context, bucket, key, upload string) error {
	_, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		part, id, _, err := n.upload(ctx, bucket, key, upload)
		if err != nil {
			return nil, err
		}
		return n.endUploadFor(ctx, part, id)
	})
	return object.WithOp(err, "abort upload", bucket, key)
}
