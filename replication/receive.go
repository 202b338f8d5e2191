package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// activeUploads are the uploads that this process has under way: the orphan
// audit leaves them alone (only to spare them; it would refuse them first).
type activeUploads struct {
	mu      sync.Mutex
	uploads map[object.UploadID]bool
}

func (a *activeUploads) set(u object.UploadID, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if on {
		a.uploads[u] = true
	} else {
		delete(a.uploads, u)
	}
}

func (a *activeUploads) has(u object.UploadID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uploads[u]
}

// received is a body whose bytes are durable but belong to nothing yet.
type received struct {
	body   namespace.Body
	owner  object.PartitionID
	upload object.UploadID
	sha256 []byte // of the whole body
	chunks []object.ChunkID
	// uncertain: an entry that may have used it was proposed and its outcome
	// is not known; what becomes of the chunks is the orphan audit's to find out.
	uncertain bool
}

// uploadWindow is how many chunks of one body are written at a time.
const uploadWindow = 4

// receive reads a body to its end and makes it durable as chunks owned by a
// partition, or keeps it for the log when it is small. size -1: unknown. max:
// the largest body taken. On an error nothing is left.
func (n *Node) receive(ctx context.Context, owner object.PartitionID, r io.Reader, size, max int64) (_ *received, err error) {
	if size > max {
		return nil, tooLarge(max)
	}
	rc := &received{owner: owner, upload: newUploadID()}
	small := make([]byte, object.MaxInline+1)
	if size >= 0 && size <= object.MaxInline {
		small = small[:size+1]
	}
	got, end, err := fill(r, small)
	switch {
	case err != nil:
		return nil, bodyError(err)
	case size >= 0 && int64(got) > size:
		return nil, overlong(size)
	case int64(got) > max:
		return nil, tooLarge(max)
	case end && size >= 0 && int64(got) < size:
		return nil, incomplete(int64(got), size)
	case end && got <= object.MaxInline:
		sum := sha256.Sum256(small[:got])
		rc.sha256, rc.body = sum[:], namespace.Body{Size: int64(got), Inline: small[:got]}
		return rc, nil
	}
	n.active.set(rc.upload, true)
	defer func() {
		if err != nil {
			n.discard(rc)
		}
	}()
	rc.body.Content = newContentID()
	in := &intake{n: n, rc: rc, r: io.MultiReader(bytes.NewReader(small[:got]), r), size: size, max: max}
	if err := in.run(ctx); err != nil {
		return nil, err
	}
	return rc, nil
}

func tooLarge(max int64) error {
	return object.Errorf(object.KindTooLarge, "the body is larger than %d bytes: send it as a multipart upload, or raise the limit (MaxObjectSize)", max)
}

func overlong(size int64) error {
	return object.Errorf(object.KindTooLarge, "the body goes on behind its declared length of %d bytes", size)
}

func incomplete(got, size int64) error {
	return object.Errorf(object.KindIncomplete, "the body ended after %d of %d bytes: send it again", got, size)
}

// bodyError is an error of the client's side of a body.
func bodyError(err error) error {
	if object.KindOf(err) != object.KindInternal {
		return err
	}
	return object.Errorf(object.KindIncomplete, "reading the body: %w", err)
}

// intake cuts one body into chunks.
type intake struct {
	n    *Node
	rc   *received
	r    io.Reader
	size int64
	max  int64

	whole hash.Hash
}

func (in *intake) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadWindow)
	var total int64
	var batch []*object.Extent
	flush := func(last bool) error {
		if err := g.Wait(); err != nil {
			return err
		}
		exts := make([]object.Extent, len(batch))
		for i, e := range batch {
			exts[i] = *e
		}
		batch = batch[:0]
		g, gctx = errgroup.WithContext(ctx)
		g.SetLimit(uploadWindow)
		if last {
			in.rc.body.Extents = exts
			return nil
		}
		return in.stage(ctx, exts)
	}
	for ordinal := uint32(0); ; ordinal++ {
		buf, err := in.n.bufs.get(gctx)
		if err != nil {
			return errors.Join(g.Wait(), err)
		}
		got, end, err := fill(in.r, *buf)
		if got > 0 && len(batch) == namespace.MaxExtents {
			if err := flush(false); err != nil {
				in.n.bufs.put(buf)
				return err
			}
		}
		if got > 0 {
			e := &object.Extent{Offset: total, Length: int64(got), ChunkLength: int64(got),
				Chunk: object.ChunkID{Owner: in.rc.owner, Upload: in.rc.upload, Ordinal: ordinal}}
			total += int64(got)
			batch = append(batch, e)
			in.rc.chunks = append(in.rc.chunks, e.Chunk)
			in.hashWhole((*buf)[:got], end && ordinal == 0)
			g.Go(func() error {
				defer in.n.bufs.put(buf)
				ref, err := in.n.chunks.Put(gctx, e.Chunk, (*buf)[:got])
				e.SHA256 = ref.SHA256
				return err
			})
		} else {
			in.n.bufs.put(buf)
		}
		switch {
		case err != nil:
			return errors.Join(bodyError(err), waited(g))
		case total > in.max:
			return errors.Join(tooLarge(in.max), waited(g))
		case in.size >= 0 && total > in.size:
			return errors.Join(overlong(in.size), waited(g))
		case end && in.size >= 0 && total < in.size:
			return errors.Join(incomplete(total, in.size), waited(g))
		case end:
			if err := flush(true); err != nil {
				return err
			}
			in.rc.body.Size = total
			in.sum()
			return nil
		}
	}
}

// waited waits for the writers and drops their error: the body's own matters.
func waited(g *errgroup.Group) error { _ = g.Wait(); return nil }

// hashWhole feeds the hash of the whole body, which a body of one chunk does not need.
func (in *intake) hashWhole(b []byte, only bool) {
	if only {
		return
	}
	if in.whole == nil {
		in.whole = sha256.New()
	}
	in.whole.Write(b)
}

func (in *intake) sum() {
	if in.whole != nil {
		in.rc.sha256 = in.whole.Sum(nil)
	} else if len(in.rc.body.Extents) == 1 {
		in.rc.sha256 = append([]byte(nil), in.rc.body.Extents[0].SHA256[:]...)
	}
}

// stage hands a full batch of extents to the owner partition.
func (in *intake) stage(ctx context.Context, exts []object.Extent) error {
	b := namespace.Body{Content: in.rc.body.Content, Extents: exts, Staged: in.rc.body.Staged}
	_, err := in.n.do(ctx, in.rc.owner, &namespace.Command{Stage: &namespace.Stage{Owner: in.n.incarnation, Body: b}})
	in.rc.body.Staged = true
	if err != nil {
		in.rc.uncertain = true
	}
	return err
}

// discard gives a received body up. Chunks that no entry can have named go at
// once; the rest by way of the owner, or of the audit.
func (n *Node) discard(rc *received) {
	defer n.active.set(rc.upload, false)
	if len(rc.chunks) == 0 || rc.uncertain && !rc.body.Staged {
		return
	}
	ctx, cancel := n.detached()
	defer cancel()
	var err error
	if rc.body.Staged {
		_, err = n.propose(ctx, rc.owner, &namespace.Command{Unstage: &namespace.Unstage{Content: rc.body.Content}})
	}
	if err == nil && !rc.uncertain {
		err = n.dropUnknown(ctx, rc.chunks)
	}
	if err != nil {
		n.log.Warn("chunks of an upload that failed are left to the orphan audit", "upload", rc.upload, "err", err)
	}
}

// keep ends a received body that was committed.
func (n *Node) keep(rc *received) { n.active.set(rc.upload, false) }

// fill reads until buf is full or the body ends. A body that breaks off
// (io.ErrUnexpectedEOF of an HTTP body) is an error, not an end, which is why
// io.ReadFull will not do.
func fill(r io.Reader, buf []byte) (n int, end bool, err error) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

// dropUnknown deletes those of one upload's chunks that the owner has no record
// of. No entry that could name them is under way.
func (n *Node) dropUnknown(ctx context.Context, ids []object.ChunkID) error {
	var unknown []object.ChunkID
	for _, id := range ids {
		known, err := n.knows(ctx, id)
		if err != nil {
			return err
		}
		if !known {
			unknown = append(unknown, id)
		}
	}
	return n.chunks.DeleteAll(ctx, unknown)
}
