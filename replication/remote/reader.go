package remote

import (
	"context"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Call sends a request to the Server of one node, which stays the same for one Reader.
type Call func(ctx context.Context, request []byte) ([]byte, error)

// Reader reads one partition as it was at one moment, at another node. It is for
// one goroutine; Close it. KindUnavailable means that the moment is lost (the node
// went, or the reader rested for longer than Idle): begin anew with another Reader.
type Reader struct {
	ctx       context.Context
	call      Call
	partition object.PartitionID
	view      uint64
}

var _ meta.Reader = (*Reader)(nil)

// Open makes a reader. Nothing is sent before the first read, which fixes the
// moment: a state that is linearizable with respect to that read's beginning.
func Open(ctx context.Context, call Call, partition object.PartitionID) *Reader {
	return &Reader{ctx: ctx, call: call, partition: partition}
}

func (r *Reader) send(req request) (a answer, err error) {
	req.Partition, req.View = uint16(r.partition), r.view
	data, err := encode(req)
	if err != nil {
		return a, err
	}
	if data, err = r.call(r.ctx, data); err != nil {
		return a, err
	}
	if err := decode(data, &a); err != nil {
		return a, &object.Error{Op: "remote view", Kind: object.KindInternal, Err: err}
	}
	r.view = a.View
	return a, nil
}

// Get is meta.Reader's.
func (r *Reader) Get(key []byte) ([]byte, bool, error) {
	a, err := r.send(request{Op: opGet, Key: key})
	if err != nil || !a.Found {
		return nil, false, err
	}
	if a.Value == nil {
		a.Value = []byte{} // an empty value is not none
	}
	return a.Value, true, nil
}

// Ascend is meta.Reader's.
func (r *Reader) Ascend(start, end []byte, fn func(key, value []byte) (bool, error)) error {
	return r.scan(request{Op: opScan, Key: start, End: end, Open: end == nil}, fn)
}

// Descend is meta.Reader's.
func (r *Reader) Descend(start, end []byte, fn func(key, value []byte) (bool, error)) error {
	return r.scan(request{Op: opScan, Key: start, End: end, Open: end == nil, Reverse: true}, fn)
}

func (r *Reader) scan(req request, fn func(key, value []byte) (bool, error)) error {
	for req.Limit = firstEntries; ; req.Limit = min(2*req.Limit, maxEntries) {
		a, err := r.send(req)
		if err != nil {
			return err
		}
		for _, p := range a.Pairs {
			if more, err := fn(p.Key, p.Value); err != nil || !more {
				return err
			}
		}
		if !a.More || len(a.Pairs) == 0 {
			return nil
		}
		last := a.Pairs[len(a.Pairs)-1].Key
		if req.Reverse {
			req.End, req.Open = slices.Clone(last), false
		} else {
			req.Key = append(slices.Clone(last), 0)
		}
	}
}

// Close lets the view go at its node, which would end it by itself a little later.
func (r *Reader) Close() error {
	if r.view == 0 {
		return nil
	}
	_, err := r.send(request{Op: opClose})
	r.view = 0
	return err
}
