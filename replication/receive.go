package replication

import (
	"context"
	"crypto/sha256"
	"io"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication/copies"
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
	scheme object.Scheme // of all its chunks
	sha256 []byte        // of the whole body
	chunks []object.ChunkID
	// uncertain: an entry that may have used it was proposed and its outcome
	// is not known; what becomes of the chunks is the orphan audit's to find out.
	uncertain bool
}

// Unsummed is a body of which the SHA-256 is not to be computed as a whole: sum,
// asked at its end, tells the one that the caller knows by then, or nil. (A body
// of one chunk gets it anyway.) Not for parts of a multipart upload: their ETag
// is made of it.
func Unsummed(r io.Reader, sum func() []byte) io.Reader { return &unsummed{r, sum} }

type unsummed struct {
	io.Reader
	sum func() []byte
}

// receive reads a body to its end and makes it durable as chunks owned by a
// partition and kept as those of the inode like (a file, or the directory where
// one is made), or keeps it for the log when it is small. size -1: unknown. max:
// the largest body taken. On an error nothing is left. A body in memory is cut at
// the chunk's size and nowhere else; others may be where memory was scarce.
func (n *Node) receive(ctx context.Context, owner object.PartitionID, like object.InodeID, r io.Reader, size, max int64) (_ *received, err error) {
	if size > max {
		return nil, tooLarge(max)
	}
	rc := &received{owner: owner, upload: n.newUpload()}
	head := int64(object.MaxInline)
	if size >= 0 {
		head = min(head, size)
	}
	small := make([]byte, head+1)
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
	if rc.scheme, err = n.schemeOf(ctx, like); err != nil {
		return nil, err
	}
	rc.body.Made = rc.scheme
	n.active.set(rc.upload, true)
	defer func() {
		if err != nil {
			n.discard(rc)
		}
	}()
	rc.body.Content = newContentID()
	if err := newIntake(n, rc, r, small[:got], size, max).run(ctx); err != nil {
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
		err = n.dropUnknown(ctx, rc.chunks, func(ctx context.Context, ids []object.ChunkID) error {
			return n.copies.DeleteAll(ctx, copies.SchemeOf(rc.scheme), ids)
		})
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

// dropUnknown drops those of one upload's chunks that the owner has no record
// of. No entry that could name them is under way.
func (n *Node) dropUnknown(ctx context.Context, ids []object.ChunkID, drop func(context.Context, []object.ChunkID) error) error {
	var unknown []object.ChunkID
	if len(ids) > 0 { // all of one owner
		var err error
		if unknown, err = n.unknown(ctx, ids[0].Owner, ids); err != nil {
			return err
		}
	}
	return drop(ctx, unknown)
}
