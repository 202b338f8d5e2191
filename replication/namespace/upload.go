package namespace

import "github.com/skshohagmiah/bucketdb/storage/object"

// Multipart uploads live in the partition that their chunks are owned by. A
// part is a content of its own; completion copies the parts' extents into a
// new content and puts that.

func (s *state) newUpload(c *NewUpload) *Result {
	if !s.has(uploadKey(c.ID)) {
		s.store(uploadKey(c.ID), &c.Rec)
	}
	return &Result{Upload: c}
}

func (s *state) putPart(c *PutPart) *Result {
	var up UploadRec
	switch {
	case !s.load(uploadKey(c.Upload), &up) || up.Ended:
		return failf(object.KindNotFound, "no such multipart upload: it was completed or aborted")
	case c.Part.Number < 1 || c.Part.Number > MaxParts:
		return failf(object.KindInvalid, "part numbers go from 1 to %d", MaxParts)
	case c.Body.Staged && !s.has(stagedKey(c.Body.Content)):
		return failf(object.KindConflict, "the staged content is gone: send the part again")
	}
	if bad := s.checkExtents(c.Body.Extents, c.Body.Existing); bad != nil {
		return bad
	}
	var old PartRec
	key := partKey(c.Upload, c.Part.Number)
	if s.load(key, &old) {
		s.trashed(garbageRec{Content: old.Content, What: garbageContent})
	}
	s.addExtents(c.Body.Content, c.Body.Extents, 0, true)
	if c.Body.Staged {
		s.drop(stagedKey(c.Body.Content))
	}
	c.Part.Content = c.Body.Content
	s.store(key, &c.Part)
	return &Result{Part: &c.Part}
}

// MaxParts is the number of parts of one multipart upload, as in S3.
const MaxParts = 10000

// partsStep bounds the parts that one EndUpload entry gives up.
const partsStep = 200

func (s *state) endUpload(c *EndUpload) *Result {
	prefix := append([]byte{keyPart}, c.Upload[:]...)
	var keys [][]byte
	var parts []object.ContentID
	s.scan(prefix, after(prefix), func(k, v []byte) bool {
		var p PartRec
		if err := codec.dec.Unmarshal(v, &p); err != nil {
			s.fail(err)
			return false
		}
		keys, parts = append(keys, append([]byte(nil), k...)), append(parts, p.Content)
		return len(keys) < partsStep
	})
	done := len(keys) < partsStep
	var up UploadRec
	if done {
		s.drop(uploadKey(c.Upload))
	} else if s.load(uploadKey(c.Upload), &up) {
		up.Ended = true // the rest is found and given up, whatever happens to the proposer
		s.store(uploadKey(c.Upload), &up)
	}
	for i, k := range keys {
		s.drop(k)
		if !parts[i].IsZero() {
			s.trashed(garbageRec{Content: parts[i], What: garbageContent})
		}
	}
	return &Result{Done: done, Partial: !done}
}
