package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// raftAlone is what a cluster is measured beside: the Raft layer of three nodes, log
// and wire with all that the real ones do, whose state machines do nothing.
type raftAlone struct {
	logs   []*wal.Log
	nets   []*transport.Node
	groups [][]*group.Group // by node, by partition
}

const raftNodes = 3

// startRaft opens so many groups on three nodes in this process, and waits until each can commit.
func startRaft(ctx context.Context, dir string, groups int) (_ *raftAlone, err error) {
	r := &raftAlone{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	secret, addresses := transport.NewSecret(), map[string]string{}
	var members []group.Member
	for i := range raftNodes {
		name := fmt.Sprintf("r%d", i+1)
		members = append(members, group.Member{ID: name, Address: name, Voter: true})
		n, err := transport.Open(transport.Options{Cluster: "bench", Node: name, Secrets: []transport.Secret{secret},
			Resolve: func(to string) (string, error) { return addresses[to], nil }})
		if err != nil {
			return nil, err
		}
		r.nets = append(r.nets, n)
		at, err := n.Listen("127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addresses[name] = at.String() // before anybody dials: groups come later
		log, err := wal.Open(wal.Options{FS: vfs.OS(), Dir: filepath.Join(dir, name, "log")})
		if err != nil {
			return nil, err
		}
		r.logs = append(r.logs, log)
		r.groups = append(r.groups, nil)
	}
	for id := object.PartitionID(1); int(id) <= groups; id++ {
		for i := range raftNodes {
			link, err := r.nets[i].Group(id)
			if err != nil {
				return nil, err
			}
			g, err := group.Open(group.Config{ID: id, Node: members[i].ID, Address: members[i].Address, Log: r.logs[i].Group(id), Machine: &nothing{}, Transport: link,
				Dir: filepath.Join(dir, members[i].ID, "replicas"), Bootstrap: true, Members: members})
			if err != nil {
				return nil, errors.Join(err, link.Close())
			}
			r.groups[i] = append(r.groups[i], g)
		}
	}
	for at := range groups {
		if err := r.commit(ctx, at, []byte("ready")); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// commit proposes at whoever leads the group.
func (r *raftAlone) commit(ctx context.Context, at int, data []byte) error {
	for end := time.Now().Add(time.Minute); ; {
		for _, node := range r.groups {
			if g := node[at]; g.IsLeader() {
				if _, err := g.Propose(ctx, data); err == nil {
					return nil
				} else if !object.IsKind(err, object.KindUnavailable) {
					return err
				}
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("group %d has no leader", at+1)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (r *raftAlone) close() error {
	var errs []error
	for _, node := range r.groups {
		for _, g := range node {
			errs = append(errs, g.Close())
		}
	}
	for _, n := range r.nets {
		errs = append(errs, n.Close())
	}
	for _, l := range r.logs {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// nothing is a state machine without a state.
type nothing struct{ applied atomic.Uint64 }

func (m *nothing) Apply(entries []group.Entry) ([]any, error) {
	m.applied.Store(entries[len(entries)-1].Index)
	return make([]any, len(entries)), nil
}
func (m *nothing) Applied() uint64 { return m.applied.Load() }
func (m *nothing) Durable() uint64 { return m.applied.Load() }

func (m *nothing) Image() (*group.Image, error) {
	at := m.applied.Load()
	return &group.Image{Applied: at, Size: 8, Data: io.NopCloser(bytes.NewReader(binary.BigEndian.AppendUint64(nil, at)))}, nil
}

func (m *nothing) Restore(_ context.Context, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(b) != 8 {
		return errors.New("the image is cut off")
	}
	m.applied.Store(binary.BigEndian.Uint64(b))
	return nil
}
