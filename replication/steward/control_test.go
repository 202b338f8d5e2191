package steward_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func (c *cluster) find(id string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		if n.id == id {
			return n.process
		}
	}
	return nil
}

// anywhere does a call here if this node leads the partition, else at the others until one has done it.
func (p *process) anywhere(ctx context.Context, part object.PartitionID, method uint16, request []byte, here func(context.Context, *replica) ([]byte, error)) ([]byte, error) {
	for {
		if r := p.replica(part); r != nil && r.IsLeader() {
			if b, err := here(ctx, r); err == nil {
				return b, nil
			}
		}
		for _, id := range p.n.c.others(p.n.id) {
			try, cancel := context.WithTimeout(ctx, 3*time.Second)
			b, err := p.wire.Call(try, id, method, request)
			cancel()
			if err == nil {
				return b, nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, object.Errorf(object.KindTimeout, "no leader of partition %d answered: %w", part, ctx.Err())
		case <-p.dead:
			return nil, errKilled
		}
	}
}

func (p *process) propose(ctx context.Context, c *control.Command) (*control.Result, error) {
	if s := c.Step; s != nil {
		if err := p.pass("step " + s.To.String()); err != nil {
			return nil, err
		}
	}
	b, err := c.Encode()
	if err != nil {
		return nil, err
	}
	b, err = p.anywhere(ctx, object.Control, methodPropose, b, func(ctx context.Context, r *replica) ([]byte, error) { return proposeHere(ctx, r, b) })
	if err != nil {
		return nil, err
	}
	var out control.Result
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&out); err != nil {
		return nil, err
	}
	if s := c.Step; s != nil {
		err = p.pass("stepped " + s.To.String())
	}
	return &out, err
}

func proposeHere(ctx context.Context, r *replica, entry []byte) ([]byte, error) {
	v, err := r.Propose(ctx, entry)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = gob.NewEncoder(&b).Encode(v.(*control.Result))
	return b.Bytes(), err
}

func (p *process) servePropose(ctx context.Context, _ transport.Peer, b []byte) ([]byte, error) {
	r := p.replica(object.Control)
	if r == nil {
		return nil, object.Errorf(object.KindUnavailable, "no control replica here")
	}
	return proposeHere(ctx, r, b)
}

// records are raw ones of partition 0: a control.Reader.
type records map[string][]byte

func (m records) Get(key []byte) ([]byte, bool, error) {
	v, ok := m[string(key)]
	return v, ok, nil
}

func (m records) Ascend(start, end []byte, fn func(k, v []byte) (bool, error)) error {
	var keys []string
	for k := range m {
		if k >= string(start) && (end == nil || k < string(end)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if more, err := fn([]byte(k), m[k]); err != nil || !more {
			return err
		}
	}
	return nil
}

func (p *process) state(ctx context.Context, linearizable bool) (*control.State, error) {
	if !linearizable {
		r := p.replica(object.Control)
		if r == nil {
			return nil, object.Errorf(object.KindNotFound, "no control replica here")
		}
		v := r.m.View()
		defer v.Close()
		return control.Load(v)
	}
	b, err := p.anywhere(ctx, object.Control, methodState, nil, stateHere)
	if err != nil {
		return nil, err
	}
	m := records{}
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&m); err != nil {
		return nil, err
	}
	return control.Load(m)
}

func stateHere(ctx context.Context, r *replica) ([]byte, error) {
	if err := r.Read(ctx); err != nil {
		return nil, err
	}
	m := records{}
	v := r.m.View()
	defer v.Close()
	if err := v.Ascend(nil, nil, func(k, v []byte) (bool, error) { m[string(k)] = bytes.Clone(v); return true, nil }); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(m)
	return b.Bytes(), err
}

func (p *process) serveState(ctx context.Context, _ transport.Peer, _ []byte) ([]byte, error) {
	r := p.replica(object.Control)
	if r == nil || !r.IsLeader() {
		return nil, object.Errorf(object.KindUnavailable, "no control leader here")
	}
	return stateHere(ctx, r)
}

func (p *process) serveWrite(ctx context.Context, _ transport.Peer, b []byte) ([]byte, error) {
	r := p.replica(object.PartitionID(b[0]))
	if r == nil {
		return nil, object.Errorf(object.KindUnavailable, "no such replica here")
	}
	_, err := r.Propose(ctx, b[1:])
	return nil, err
}
