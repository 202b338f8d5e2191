package access

import (
	"context"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// batcher lets readers share read indexes: all that wait while one is under way
// share the next, never the one under way, which may have been taken before they
// began.
type batcher struct {
	mu   sync.Mutex // guards what follows
	next *indexed   // nobody has asked for it yet: readers may join
	busy bool       // a goroutine asks
}

type indexed struct {
	done  chan struct{} // closed once what follows is set
	index uint64
	err   error
}

// get returns an index that fetch read after the call began. fetch must end by itself.
func (b *batcher) get(ctx context.Context, fetch func() (uint64, error)) (uint64, error) {
	b.mu.Lock()
	if b.next == nil {
		b.next = &indexed{done: make(chan struct{})}
	}
	mine := b.next
	if !b.busy {
		b.busy = true
		go b.run(fetch)
	}
	b.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, object.Errorf(object.KindOf(ctx.Err()), "no leader said in time how far a read must see: %w", ctx.Err())
	}
}

func (b *batcher) run(fetch func() (uint64, error)) {
	for {
		b.mu.Lock()
		now := b.next
		b.next = nil
		b.busy = now != nil
		b.mu.Unlock()
		if now == nil {
			return
		}
		now.index, now.err = fetch()
		close(now.done)
	}
}

// readIndex asks whoever leads for an index that is linearizable, and if none can
// be reached, has the other replicas ask. For one that hangs nobody needs to wait twice.
func (p *Partitions) readIndex(pt *partition) (uint64, error) {
	index, err := p.readIndexBy(pt, false)
	if err != nil && !object.IsKind(err, object.KindTimeout) {
		index, err = p.readIndexBy(pt, true)
	}
	return index, err
}

// readIndexBy asks each node at most once. KindTimeout: one of them did not answer.
func (p *Partitions) readIndexBy(pt *partition, relay bool) (uint64, error) {
	t := tour{p: p, pt: pt, leader: !relay}
	err := error(object.Errorf(object.KindUnavailable, "partition %d has no leader that is known here; try again", pt.id))
	for {
		node := t.next()
		switch node {
		case "":
			return 0, err
		case p.cfg.Self:
			continue
		}
		a, failed := p.askIndex(pt, node, relay)
		if failed == nil && a.State == stateDone {
			if !relay {
				pt.led(node)
			}
			return a.Index, nil
		}
		pt.notLed(node)
		if t.hint = ""; failed == nil {
			failed, t.hint = a.err(), pt.nodeOf(a.Leader)
		}
		if !object.IsKind(err, object.KindTimeout) {
			err = failed
		}
	}
}

func (p *Partitions) askIndex(pt *partition, node string, relay bool) (answer, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.ReadWait)
	defer cancel()
	request := piece{partition: pt.id, relay: relay}
	b, err := p.call(ctx, node, MethodIndex, request.encode())
	if err != nil {
		return answer{}, err
	}
	return decodeAnswer(b)
}
