package replication

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The orphan audit: chunks on this node's disks that no entry names, since a crash came
// between the chunk and its commit. Uploads that are under way are spared, wherever; that
// is a courtesy: the owner refuses an upload for ever before anything of it is dropped.

const (
	auditEvery = time.Hour
	// auditShare bounds audits that others' restarts ask for: one lasts at most this part of the
	// time between two.
	auditShare = 20
	// auditBatch is how many files are looked at together: one view of their owner,
	// one question to each node that may still upload some of them.
	auditBatch = 1024
	// uploadsWait bounds that question.
	uploadsWait = 5 * time.Second
	// uploadTag is the part of an upload's id that names the process it belongs to: the
	// same bytes of its incarnation. The rest of the id is random.
	uploadTag = 10
)

// newUpload makes the id of an upload of this process. Its first byte is random: files
// are spread over directories by it.
func (n *Node) newUpload() object.UploadID {
	u := newUploadID()
	copy(u[uploadTag:], n.incarnation[uploadTag:])
	return u
}

// auditor audits after the start, when the process of another node has ended (its uploads are over
// then), and now and then: an entry whose outcome was not known may have left chunks since.
func (n *Node) auditor() {
	tick := time.NewTicker(auditEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		n.logged("orphan audit", n.audit(n.ctx))
		rest := time.NewTimer(max(auditShare*time.Since(began), time.Second)) // who restarts for ever shall not keep disks busy
		select {
		case <-n.ctx.Done():
			rest.Stop()
			return
		case <-tick.C: // the hourly one waits for no rest
			rest.Stop()
			continue
		case <-rest.C:
		}
		select {
		case <-n.ctx.Done():
			return
		case <-n.moves.audit:
		case <-tick.C:
		}
	}
}

// uploadsOver reports whether, by a newer map, the process of another node has ended that
// may have had uploads under way.
func uploadsOver(self control.NodeID, old, s *control.State) bool {
	if old == nil {
		return false
	}
	for i := range old.Nodes {
		was, is := &old.Nodes[i], s.Node(old.Nodes[i].ID)
		if was.ID != self && was.Life != control.NodeRemoved && (is == nil || is.Incarnation != was.Incarnation || is.Life == control.NodeRemoved || is.Gone && !was.Gone) {
			return true
		}
	}
	return false
}

// audit looks at every chunk file of this node.
func (n *Node) audit(ctx context.Context) error {
	if n.keepsAll() {
		return nil
	}
	owners, err := n.chunks.Partitions()
	if err != nil {
		return err
	}
	for _, owner := range owners {
		if int(owner) >= len(n.parts) {
			n.log.Warn("chunks of a partition that this store does not have are left alone", "partition", owner)
			continue
		}
		for after, more := (object.ChunkID{}), true; more; {
			var ids []object.ChunkID
			full := errors.New("enough")
			err := n.chunks.Each(ctx, owner, after, func(id object.ChunkID) error {
				if ids = append(ids, id); len(ids) == auditBatch {
					return full
				}
				return nil
			})
			if more = errors.Is(err, full); err != nil && !more {
				return err
			}
			if err := n.auditBatch(ctx, owner, ids); err != nil {
				return err
			}
			if more {
				after = ids[len(ids)-1]
			}
		}
	}
	return nil
}

// auditBatch judges files of one owner.
func (n *Node) auditBatch(ctx context.Context, owner object.PartitionID, ids []object.ChunkID) error {
	unknown, err := n.unknown(ctx, owner, ids)
	if err != nil || len(unknown) == 0 {
		return err
	}
	orphans := map[object.UploadID][]object.ChunkID{}
	for _, id := range unknown {
		orphans[id.Upload] = append(orphans[id.Upload], id)
	}
	uploads := make([]object.UploadID, 0, len(orphans))
	for u := range orphans {
		uploads = append(uploads, u)
	}
	spared, err := n.underway(ctx, uploads)
	if err != nil {
		return err
	}
	for upload, ids := range orphans {
		if spared[upload] {
			continue
		}
		if _, err := n.do(ctx, owner, &namespace.Command{Refuse: &namespace.RefuseUpload{Upload: upload}}); err != nil {
			return err
		}
		if err := n.dropUnknown(ctx, ids, n.copies.DeleteHere); err != nil {
			return err
		}
		n.log.Info("dropped chunks of an upload that was never committed", "upload", upload, "chunks", len(ids))
	}
	return nil
}

// keepsAll reports whether no chunk's data may be dropped, by the cluster's settings.
func (n *Node) keepsAll() bool {
	s := n.state.Load()
	return s == nil || s.Settings.Hold
}

// unknown are those of an owner's chunks that it has no record of.
func (n *Node) unknown(ctx context.Context, owner object.PartitionID, ids []object.ChunkID) (list []object.ChunkID, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	err = n.inView(ctx, owner, func(v *namespace.View) error {
		for _, id := range ids {
			live, releasing, err := v.Knows(id)
			if err != nil {
				return err
			}
			if !live && !releasing {
				list = append(list, id)
			}
		}
		return nil
	})
	return list, err
}

// underway tells which uploads, of which something was seen before the call, may be under
// way. An upload belongs to a process, and that is in the control state before it uploads
// anything: where none there has its tag, the process has ended. Uploads of a node that
// does not answer may be under way.
func (n *Node) underway(ctx context.Context, uploads []object.UploadID) (map[object.UploadID]bool, error) {
	spared := map[object.UploadID]bool{}
	elsewhere := uploads[:0:0]
	for _, u := range uploads {
		if n.active.has(u) {
			spared[u] = true
		} else if !bytes.Equal(u[uploadTag:], n.incarnation[uploadTag:]) {
			elsewhere = append(elsewhere, u)
		}
	}
	if len(elsewhere) == 0 {
		return spared, nil
	}
	s, err := n.Control(ctx)
	if err != nil {
		return nil, err
	}
	for i := range s.Nodes {
		var its []object.UploadID
		for _, u := range elsewhere {
			if bytes.Equal(u[uploadTag:], s.Nodes[i].Incarnation[uploadTag:]) {
				its = append(its, u)
			}
		}
		// Of a node that is gone: others take over what it has, and cannot wait for it.
		if len(its) > 0 && s.Nodes[i].Life != control.NodeRemoved && !s.Nodes[i].Gone {
			n.askUploads(ctx, &s.Nodes[i], its, spared)
		}
	}
	return spared, nil
}

// askUploads adds those uploads that a node has under way, or all if it does not say.
func (n *Node) askUploads(ctx context.Context, at *control.Node, uploads []object.UploadID, spared map[object.UploadID]bool) {
	ctx, cancel := context.WithTimeout(ctx, uploadsWait)
	defer cancel()
	for len(uploads) > 0 {
		some := uploads[:min(len(uploads), auditBatch)]
		uploads = uploads[len(some):]
		request := make([]byte, 0, len(some)*len(object.UploadID{}))
		for _, u := range some {
			request = append(request, u[:]...)
		}
		answer, err := n.net.Call(ctx, string(at.ID), methodUploads, request)
		var active []bool
		if err == nil {
			active, err = decodeUploads(answer, at.Incarnation, len(some))
		}
		if err != nil {
			n.log.Info("a node does not say what it uploads: such chunks are left alone", "node", at.ID, "uploads", len(some), "err", err)
		}
		for i, u := range some {
			if err != nil || active[i] {
				spared[u] = true
			}
		}
	}
}

// serveUploads answers askUploads: this process's incarnation, then one byte for each upload.
func (n *Node) serveUploads(_ context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	const size = len(object.UploadID{})
	if len(request)%size != 0 || len(request) > auditBatch*size {
		return nil, object.Errorf(object.KindInvalid, "a question about uploads of %d bytes is none", len(request))
	}
	answer := append(make([]byte, 0, size+len(request)/size), n.incarnation[:]...)
	for ; len(request) > 0; request = request[size:] {
		b := byte(0)
		if n.active.has(object.UploadID(request[:size])) {
			b = 1
		}
		answer = append(answer, b)
	}
	return answer, nil
}

// decodeUploads reads what serveUploads wrote about count uploads of an incarnation. If
// another one answers, that has ended, with its uploads.
func decodeUploads(b []byte, of control.Incarnation, count int) ([]bool, error) {
	if len(b) != len(of)+count {
		return nil, object.Errorf(object.KindInternal, "an answer of %d bytes about %d uploads is none", len(b), count)
	}
	active := make([]bool, count)
	if control.Incarnation(b[:len(of)]) != of {
		return active, nil
	}
	for i, x := range b[len(of):] {
		active[i] = x != 0
	}
	return active, nil
}
