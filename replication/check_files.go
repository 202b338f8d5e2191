package replication

import (
	"bytes"
	"cmp"
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// fileJoin merges the chunks on record of one owner with its files: both come in
// the order of ids, so that none needs to be kept. What does not meet is asked
// about anew, for the view and the listing are of different times.
type fileJoin struct {
	c     *checker
	ctx   context.Context
	fail  context.CancelCauseFunc // ends the walk
	pull  func() (object.ChunkID, error, bool)
	at    object.ChunkID // the next file
	there bool           // it is there
	err   error
	asks  errgroup.Group // about the chunks' other holders
}

// step goes on to the next file.
func (j *fileJoin) step() {
	var err error
	if j.at, err, j.there = j.pull(); err != nil {
		j.end(err)
	}
}

func (j *fileJoin) end(err error) {
	if j.err == nil {
		j.err = err
	}
	j.there = false
	j.fail(err)
}

// recorded takes the next chunk on record.
func (j *fileJoin) recorded(ch copies.Chunk) {
	for j.there && compareChunks(j.at, ch.ID) < 0 {
		j.stray()
	}
	here, elsewhere := j.c.on.holders(ch)
	switch {
	case j.err != nil:
		return
	case j.there && j.at == ch.ID:
		j.step()
	case here:
		j.missing(ch.ID)
	}
	if elsewhere && j.ctx.Err() == nil {
		j.asks.Go(func() error {
			err := j.c.lookElsewhere(j.ctx, ch)
			if err != nil {
				j.fail(err)
			}
			return err
		})
	}
}

// checkAsks is how many chunks are looked for at other nodes at once.
const checkAsks = 16

// lookElsewhere lists a chunk that another holder lacks. Who does not answer is
// asked no more; what it holds is counted.
func (c *checker) lookElsewhere(ctx context.Context, ch copies.Chunk) error {
	list, err := c.on.lookFor(ctx, ch, c.says)
	if err != nil {
		return err
	}
	for _, h := range list {
		switch kind := object.KindOf(h.Err); {
		case h.Err == nil || !h.Now:
		case ctx.Err() != nil:
			return ctx.Err()
		case kind == object.KindNotFound || kind == object.KindCorrupt:
			live, _, err := c.on.known(ctx, ch.ID)
			if err != nil {
				return err
			}
			if live { // after it was not there
				c.problem(ProblemMissing, "chunk %s is missing at node %s, which is to hold it (%v)", ch.ID, h.Node, h.Err)
			}
		default:
			c.unsaid(h.Node, h.Err)
		}
	}
	return nil
}

// says reports whether a node has answered so far; what is not asked is counted.
func (c *checker) says(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.silent[node]
	if s != nil {
		s.chunks++
	}
	return s == nil
}

// unsaid notes that a node did not answer about a chunk.
func (c *checker) unsaid(node string, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent == nil {
		c.silent = map[string]*silence{}
	}
	if c.silent[node] == nil {
		c.silent[node] = &silence{why: why}
	}
	c.silent[node].chunks++
}

// missing lists a chunk that has no file. A file goes only after its record: one
// that is on record after the file was not there has lost it.
func (j *fileJoin) missing(id object.ChunkID) {
	there, err := j.c.on.onDisk(id)
	if err == nil && !there {
		if there, _, err = j.c.on.known(j.ctx, id); err == nil && there {
			j.c.problem(ProblemMissing, "chunk %s is missing on disk", id)
		}
	}
	if err != nil {
		j.end(err)
	}
}

// stray lists the file at hand if it is one, and goes on.
func (j *fileJoin) stray() {
	stray, err := j.isStray(j.at)
	if err != nil {
		j.end(err)
		return
	}
	if stray {
		j.c.problem(ProblemStray, "chunk %s is on disk and nobody knows it", j.at)
	}
	j.step()
}

// isStray reports whether a file is there that no record names. A record is there before
// its upload ends, and goes after its file: one that has neither record nor upload, in this
// order, has none. The first look spares most questions about uploads.
func (j *fileJoin) isStray(id object.ChunkID) (bool, error) {
	on := j.c.on
	for look := range 2 {
		live, releasing, err := on.known(j.ctx, id)
		if err != nil || live || releasing {
			return false, err
		}
		if look == 0 {
			if writing, err := on.writing(j.ctx, id.Upload); err != nil || writing {
				return false, err
			}
		}
	}
	return on.onDisk(id)
}

// compareChunks is the order of ids: owner, upload, ordinal.
func compareChunks(a, b object.ChunkID) int {
	return cmp.Or(cmp.Compare(a.Owner, b.Owner), bytes.Compare(a.Upload[:], b.Upload[:]), cmp.Compare(a.Ordinal, b.Ordinal))
}
