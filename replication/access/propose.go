package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Propose commits an encoded namespace.Command in a partition, through whoever
// leads it, and returns what it came to (whose own error is not looked at). It looks
// for a leader until ctx ends. data belongs to it from then on: do not change it.
//
// What an error means: KindTimeout: unknown, it may be applied now, later or
// never. Any other: certainly not applied, and it never will be; among them
// KindUnavailable and KindOverload (try again), KindCanceled (ctx was), KindStale
// (no such partition), KindTooLarge, and what Check refused it with.
func (p *Partitions) Propose(ctx context.Context, id object.PartitionID, data []byte) (*namespace.Result, error) {
	return p.propose(ctx, id, data, false)
}

// ProposeRepeatable is Propose for an entry that may stand in the log more than
// once, since it carries a token or changes nothing the second time: when an
// attempt's outcome is unknown, it is proposed again; the Result of a later attempt
// says so (Doubtful). KindTimeout: ctx ended, or nothing certain can come any more.
func (p *Partitions) ProposeRepeatable(ctx context.Context, id object.PartitionID, data []byte) (*namespace.Result, error) {
	return p.propose(ctx, id, data, true)
}

func (p *Partitions) propose(ctx context.Context, id object.PartitionID, data []byte, repeatable bool) (*namespace.Result, error) {
	if len(data) > group.MaxEntry {
		return nil, object.Errorf(object.KindTooLarge, "a change of %d bytes does not fit the log of partition %d (at most %d): make smaller ones", len(data), id, group.MaxEntry)
	}
	pt, err := p.partition(id)
	if err != nil {
		return nil, err
	}
	wait := p.cfg.ProposeWait
	if repeatable {
		wait = p.cfg.RepeatWait
	}
	t := tour{p: p, pt: pt, leader: true}
	var refused, unknown, why error // what was heard last, and why no more was
	for ctx.Err() == nil {
		node, o := p.attempt(ctx, &t, data, wait)
		switch o.state {
		case stateDone:
			pt.led(node)
			o.result.Doubtful = unknown != nil
			return o.result, nil
		case stateUnknown:
			pt.notLed(node)
			if !repeatable {
				return nil, o.err
			}
			unknown = o.err
			// It may only be slow, and each attempt is one more entry for it.
			wait = min(2*wait, max(wait, p.cfg.ProposeWait))
		case stateFinal:
			if unknown != nil { // an earlier attempt may still be applied
				return nil, unknownFor(pt, o.err)
			}
			return nil, o.err
		default:
			pt.notLed(node)
			t.hint = o.leader
			if o.err != nil {
				refused = o.err
			}
			if err := p.broken(pt); err != nil {
				if unknown != nil { // after a restart it may be in the log
					return nil, unknownFor(pt, err)
				}
				return nil, err
			}
		}
		if node != "" {
			continue
		}
		if why = t.again(ctx); why != nil {
			break
		}
	}
	if unknown != nil {
		return nil, unknownFor(pt, unknown)
	}
	return nil, gaveUp(pt, cmp.Or(why, ctx.Err()), refused)
}

func unknownFor(pt *partition, cause error) error {
	return object.Errorf(object.KindTimeout, "partition %d: whether the change was made is unknown; look, or retry it with the same token: %w", pt.id, cause)
}

// outcome is what became of one attempt.
type outcome struct {
	state  state
	result *namespace.Result
	err    error
	leader string // the node that leads, if a refusal named one
}

// attempt asks one node, which it returns: this one if it leads, else the tour's
// next; "" with nothing done when all were asked in this round.
func (p *Partitions) attempt(ctx context.Context, t *tour, data []byte, wait time.Duration) (string, outcome) {
	if l := t.pt.use(); l != nil {
		if l.leads() && !slices.Contains(t.tried, p.cfg.Self) {
			defer l.uses.Done()
			t.tried = append(t.tried, p.cfg.Self)
			o := p.proposeHere(ctx, l, data, wait)
			o.leader = t.pt.nodeOf(o.leader)
			return p.cfg.Self, o
		}
		l.uses.Done() // Detach must not wait for another node
	}
	node := t.next()
	if node == p.cfg.Self { // it does not lead, or was asked above
		node = t.next()
	}
	if node == "" {
		return "", outcome{state: stateRefused}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	// Who leads may be out of reach for this node alone.
	o := p.proposeAt(ctx, node, piece{partition: t.pt.id, relay: t.round > 0}, data)
	o.leader = t.pt.nodeOf(o.leader)
	return node, o
}

// proposeHere proposes at the replica here. The outcome's leader is a replica id.
func (p *Partitions) proposeHere(ctx context.Context, l *local, data []byte, wait time.Duration) outcome {
	ctx, cancel := l.within(ctx, wait)
	defer cancel()
	if !l.leads() { // it does not judge what it will not propose
		return refusedBy(l)
	}
	if p.cfg.Check != nil {
		if err := p.cfg.Check(ctx, l.Group.ID(), data); err != nil {
			if object.IsKind(err, object.KindUnavailable) {
				return outcome{state: stateRefused, err: err}
			}
			return outcome{state: stateFinal, err: err}
		}
	}
	r, err := l.Group.Propose(ctx, data)
	if err != nil {
		o := outcome{state: judge(err), err: err}
		o.leader, _ = group.LeaderOf(err)
		return o
	}
	result, ok := r.(*namespace.Result)
	if !ok { // the group's machine is not a namespace
		return outcome{state: stateUnknown, err: object.Errorf(object.KindTimeout, "partition %d gave a %T", l.Group.ID(), r)}
	}
	return outcome{state: stateDone, result: result}
}

// refusedBy is the outcome at a replica that does not lead.
func refusedBy(l *local) outcome {
	id, ok := l.Group.Leader()
	if !ok || id == l.ID {
		id = ""
	}
	return outcome{state: stateRefused, leader: id,
		err: &object.Error{Kind: object.KindUnavailable, Err: &group.NotLeader{Partition: l.Group.ID(), Leader: id}}}
}

// judge says what an error of group.Propose means.
func judge(err error) state {
	switch object.KindOf(err) {
	case object.KindUnavailable, object.KindOverload, object.KindCanceled:
		return stateRefused
	case object.KindTooLarge, object.KindNoSpace, object.KindInvalid:
		return stateFinal
	}
	return stateUnknown
}

// proposeAt proposes data at another node, in pieces if need be; part says where and how.
func (p *Partitions) proposeAt(ctx context.Context, node string, part piece, data []byte) (o outcome) {
	part.total = len(data)
	if len(data) > pieceBytes {
		rand.Read(part.upload[:]) // never fails (crypto/rand)
	}
	for {
		part.data = data[part.offset:min(part.offset+pieceBytes, len(data))]
		last := part.offset+len(part.data) == len(data)
		o = p.proposePiece(ctx, node, part, last)
		if o.state != stateMore {
			return o
		}
		part.offset += len(part.data)
	}
}

// proposePiece sends one piece. Until the last is sent, nothing is unknown.
func (p *Partitions) proposePiece(ctx context.Context, node string, part piece, last bool) outcome {
	b, err := p.call(ctx, node, MethodPropose, part.encode())
	if err != nil {
		s := notDone(err)
		if s == stateUnknown {
			err = unknownAt(node, err)
		}
		if !last && s == stateUnknown {
			s = stateRefused
		}
		return outcome{state: s, err: err}
	}
	a, err := decodeAnswer(b)
	switch {
	case err == nil && a.State == stateMore && !last:
		return outcome{state: stateMore}
	case err == nil && a.State == stateDone && a.Result != nil && last:
		return outcome{state: stateDone, result: a.Result}
	case err == nil && a.State >= stateRefused:
		o := outcome{state: a.State, err: a.err(), leader: a.Leader}
		if a.State == stateUnknown {
			o.err = unknownAt(node, o.err)
		}
		return o
	case !last:
		return outcome{state: stateRefused, err: err}
	}
	return outcome{state: stateUnknown, err: unknownAt(node, err)}
}

// notDone says what an error of a call to a handler that always answers means:
// these kinds are the transport's own, for what was never handled.
func notDone(err error) state {
	switch object.KindOf(err) {
	case object.KindUnavailable, object.KindOverload, object.KindCanceled, object.KindVersion,
		object.KindUnauthenticated, object.KindPermission, object.KindNotSupported:
		return stateRefused
	}
	return stateUnknown
}

func unknownAt(node string, cause error) error {
	if object.IsKind(cause, object.KindTimeout) {
		return cause
	}
	if cause == nil {
		cause = object.Errorf(object.KindInternal, "its answer makes no sense")
	}
	return object.Errorf(object.KindTimeout, "node %s: whether the change was made is unknown; look, or retry it with the same token: %w", node, cause)
}
