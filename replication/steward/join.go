package steward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// joinTry bounds one attempt at one address; proposing may wait for an election.
	joinTry = 5 * time.Second
	// joinPause is the first pause between two rounds through the addresses; it doubles up to joinPauseMost.
	joinPause     = 200 * time.Millisecond
	joinPauseMost = 10 * time.Second
)

// Join makes this node one of the cluster that some of addresses (host:port of
// other nodes' listeners) belong to. It tries for ever, and says in the log why it has not succeeded yet;
// it may be repeated. A store that has joined already returns nil at once. Errors: those
// that no patience mends: KindPermission (this node was removed), KindStale (a later process of it
// has started), KindVersion, KindInvalid; KindCanceled and KindUnavailable when ctx or the steward ended.
func (s *Steward) Join(ctx context.Context, addresses []string) error {
	if s.Joined() {
		return nil
	}
	s.mu.Lock()
	founding := s.identity != nil
	s.mu.Unlock()
	if founding {
		return object.Errorf(object.KindExists, "this node was bootstrapping a cluster: finish that, or start on empty directories")
	}
	if len(addresses) == 0 {
		return object.Errorf(object.KindInvalid, "joining needs the address of a node of the cluster (-join host:port)")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	a, err := s.persist(ctx, func() (*joinAnswer, error) { return s.askToJoin(ctx, addresses) })
	if err != nil {
		return err
	}
	peers := map[control.NodeID]string{s.cfg.Self.Node: s.cfg.Self.Peer}
	for _, p := range a.Peers {
		peers[p.Node] = p.Peer
	}
	if err := s.belong(a.Cluster, nil, peers, false); err != nil {
		return err
	}
	s.log.Info("joined the cluster", "cluster", ClusterName(a.Cluster), "nodes", len(peers))
	return nil
}

// register tells the cluster of this node's new process and where it is.
func (s *Steward) register(ctx context.Context) error {
	_, err := s.persist(ctx, func() (*joinAnswer, error) {
		var errs []error
		if s.replicas.group(object.Control) != nil {
			a, err := s.registerHere(ctx)
			if err == nil || final(err) {
				return a, err
			}
			errs = append(errs, err)
		}
		var list []string
		for node, addr := range s.cfg.Book.addresses() {
			if node != s.cfg.Self.Node {
				list = append(list, addr)
			}
		}
		list = append(list, s.cfg.Seeds...)
		slices.Sort(list)
		a, err := s.askToJoin(ctx, slices.Compact(list))
		if err == nil || final(err) {
			return a, err
		}
		return nil, errors.Join(append(errs, err)...)
	})
	return err
}

func (s *Steward) registerHere(ctx context.Context) (*joinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTry)
	defer cancel()
	j := &s.cfg.Self
	r, err := s.cfg.Propose(ctx, &control.Command{Update: &control.UpdateNode{
		Node: j.Node, Store: j.Store, Incarnation: j.Incarnation, API: j.API, Peer: j.Peer, Versions: j.Versions}})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, err
	}
	return &joinAnswer{Cluster: r.Cluster}, nil
}

// persist tries until it succeeds, ctx ends, or the error is final.
func (s *Steward) persist(ctx context.Context, try func() (*joinAnswer, error)) (*joinAnswer, error) {
	var why error // of the last try that ctx did not cut short
	for pause := joinPause; ; pause = min(2*pause, joinPauseMost) {
		a, err := try()
		if err == nil || final(err) {
			return a, err
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		if ctx.Err() == nil {
			s.complain.warn("join", "this node is not known to its cluster yet; it tries again. "+advice(err), err)
			s.cfg.Waiting("it is not known to its cluster yet, and tries again. "+advice(err), err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return nil, object.Errorf(object.KindOf(ctx.Err()), "this node is not known to its cluster yet: %w", errors.Join(ctx.Err(), why))
		}
	}
}

// final reports whether no patience mends an error of joining.
func final(err error) bool {
	var f *finalError
	return errors.As(err, &f)
}

// finalError is a verdict of the control group, not of the way there.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// verdict is the error of a Join that was judged.
func verdict(a *joinAnswer) error {
	err := object.Errorf(a.Kind, "%s", a.Message)
	switch a.Kind {
	case object.KindInvalid, object.KindPermission, object.KindStale, object.KindVersion:
		return &object.Error{Kind: a.Kind, Err: &finalError{err}}
	}
	return err
}

// advice is what to do about an error of joining. Several addresses were asked, and what
// one said of versions explains the silence of the others.
func advice(err error) string {
	if within(err, object.KindVersion) {
		return "Upgrade the older of the two nodes"
	}
	switch object.KindOf(err) {
	case object.KindUnauthenticated, object.KindPermission:
		return "Check that the join token is this cluster's"
	case object.KindExists, object.KindConflict, object.KindBusy:
		return "It succeeds once that is done"
	}
	return "Check that the nodes it was given run and that their addresses can be reached from here"
}

// within reports whether an error, or any that it is made of, is of a kind.
func within(err error, k object.Kind) bool {
	if e, ok := err.(*object.Error); ok && e.Kind == k {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return within(e.Unwrap(), k)
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), func(part error) bool { return within(part, k) })
	}
	return false
}

// askToJoin asks each address in turn; the error has them all.
func (s *Steward) askToJoin(ctx context.Context, addresses []string) (*joinAnswer, error) {
	request, err := (&control.Command{Join: &s.cfg.Self}).Encode()
	if err != nil {
		return nil, err
	}
	if len(addresses) == 0 {
		return nil, object.Errorf(object.KindUnavailable, "no other node is known here")
	}
	var errs []error
	for _, addr := range addresses {
		if ctx.Err() != nil {
			break
		}
		a, err := s.askAddress(ctx, addr, request)
		if err == nil || final(err) {
			return a, err
		}
		errs = append(errs, object.Errorf(object.KindOf(err), "at %s: %w", addr, err))
	}
	err = errors.Join(errs...)
	return nil, &object.Error{Kind: object.KindOf(err), Err: err}
}

func (s *Steward) askAddress(ctx context.Context, addr string, request []byte) (*joinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTry)
	defer cancel()
	_, b, err := s.cfg.Transport.CallAddress(ctx, addr, MethodJoin, request)
	if errors.Is(err, transport.ErrLeftOut) {
		return nil, &object.Error{Kind: object.KindPermission, Err: &finalError{err}}
	}
	if err != nil {
		return nil, err
	}
	a, err := decodeJoinAnswer(b)
	if err != nil {
		return nil, err
	}
	if a.Failed {
		return nil, verdict(a)
	}
	s.mu.Lock()
	mine := s.identity
	s.mu.Unlock()
	if mine != nil && mine.Cluster != a.Cluster {
		return nil, object.Errorf(object.KindInvalid, "%s belongs to cluster %x, this node to %x", addr, a.Cluster, mine.Cluster)
	}
	return a, nil
}

// serveJoin proposes another node's Join. What it came to stands in the answer; an
// error means that it may be asked again, here or elsewhere.
func (s *Steward) serveJoin(ctx context.Context, from transport.Peer, request []byte) ([]byte, error) {
	c, err := control.DecodeCommand(request)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Join == nil:
		return nil, object.Errorf(object.KindInvalid, "a join that is none")
	case string(c.Join.Node) != from.Node:
		return nil, object.Errorf(object.KindPermission, "node %s asks to join as node %s", from.Node, c.Join.Node)
	}
	s.mu.Lock()
	id, closed := s.identity, s.closed
	s.mu.Unlock()
	if id == nil || id.Founding || closed {
		return nil, object.Errorf(object.KindUnavailable, "node %s is in no cluster itself yet: ask another, or wait", s.cfg.Self.Node)
	}
	st, err := s.cfg.State(ctx, false)
	if err != nil && c.Join.Partitions != 0 {
		st, err = s.cfg.State(ctx, true) // no control state has come here yet
	}
	switch {
	case err == nil:
		if bad := unfit(c.Join, st.Header.Partitions); bad != nil {
			return encode(bad)
		}
		// A known node that moved must be reached before its entry can be committed, if it has a vote.
		if n := st.Node(c.Join.Node); n != nil && n.Store == c.Join.Store {
			s.cfg.Book.say(c.Join.Node, c.Join.Peer)
		}
	case c.Join.Partitions != 0:
		return nil, err
	}
	r, err := s.cfg.Propose(ctx, &control.Command{Join: c.Join})
	if err != nil {
		return nil, err
	}
	if r.Failed {
		return encode(&joinAnswer{Failed: true, Kind: r.Kind, Message: r.Message})
	}
	s.cfg.Book.say(c.Join.Node, c.Join.Peer)
	s.Wake()
	a := &joinAnswer{Cluster: r.Cluster}
	for node, addr := range s.cfg.Book.addresses() {
		if addr != "" && node != c.Join.Node {
			a.Peers = append(a.Peers, peerAddress{Node: node, Peer: addr})
		}
	}
	slices.SortFunc(a.Peers, func(x, y peerAddress) int { return cmp.Compare(x.Node, y.Node) })
	return encode(a)
}

// unfit refuses a store that was made for another number of partitions, before
// anything is recorded: it could never start, and would stand in the list of nodes until
// somebody removed it. Any state will do, however old: the number is fixed at bootstrap.
func unfit(j *control.Join, partitions int) *joinAnswer {
	if j.Partitions == 0 || j.Partitions == partitions {
		return nil
	}
	return &joinAnswer{Failed: true, Kind: object.KindInvalid, Message: fmt.Sprintf(
		"the cluster has %d partitions, and the store of node %s was made for %d: start it on empty directories with -partitions %d", partitions, j.Node, j.Partitions, partitions)}
}

// leftOutTry bounds the question to one node whether its cluster goes on without this one.
const leftOutTry = 2 * time.Second

// leftOut asks the other nodes, at the start, whether the cluster was recovered without this
// node (transport.ErrLeftOut): KindPermission then. Several that were left out could be a majority of
// what the cluster was, and go on serving as that. Who does not answer says nothing.
func (s *Steward) leftOut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leftOutTry)
	defer cancel()
	found := make(chan error, 1)
	var wg sync.WaitGroup
	for node, addr := range s.cfg.Book.addresses() {
		if node == s.cfg.Self.Node || addr == "" {
			continue
		}
		wg.Go(func() {
			_, _, err := s.cfg.Transport.CallAddress(ctx, addr, MethodReport, nil)
			if errors.Is(err, transport.ErrLeftOut) {
				select {
				case found <- err:
				default:
				}
				cancel()
			}
		})
	}
	wg.Wait()
	select {
	case err := <-found:
		return err
	default:
		return nil
	}
}
