package transport

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestReplicaOf(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"n1": true, "n1#1": true, "n1#18446744073709551615": true,
		"": false, "n": false, "n12": false, "n2": false, "n2#1": false, "n1#": false, "n1#0": false, "n1#01": false,
		"n1#-1": false, "n1#1x": false, "n1#18446744073709551616": false, "n1/1": false, "x#n1": false,
	} {
		if replicaOf([]byte(id), "n1") != want {
			t.Errorf("%q is a replica of node n1: %v", id, !want)
		}
	}
}

// warnings counts what a node warns of.
type warnings struct {
	slog.Handler
	n *atomic.Int64
}

func (w warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w warnings) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "raft request") {
		w.n.Add(1)
	}
	return nil
}

// TestForgedSender sends requests of every kind in the name of another node's
// replica: none reaches the group.
func TestForgedSender(t *testing.T) {
	t.Parallel()
	s, bk, warned := NewSecret(), &book{}, warnings{slog.DiscardHandler, new(atomic.Int64)}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}})
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}, Logger: slog.New(warned)})
	from, err := a.Group(1)
	must(t, err)
	to, err := b.Group(1)
	must(t, err)
	for i, h := range []raft.RPCHeader{headerFrom("b", "a"), headerFrom("c#4", "a"), headerFrom("a", "c"), headerFrom("a#1", "b\x00a#1\x00c"), headerFrom("", "a"), headerFrom("a", ""), {}} {
		beat := &raft.AppendEntriesRequest{RPCHeader: h, Term: 9}
		entry := &raft.AppendEntriesRequest{RPCHeader: h, Term: 9, PrevLogEntry: 1, PrevLogTerm: 1}
		var resp raft.AppendEntriesResponse
		for what, err := range map[string]error{
			"heartbeat": from.AppendEntries("b", "b", beat, &resp),
			"append":    from.AppendEntries("b", "b", entry, &resp),
			"probe":     from.Probe("b", "b", beat, &resp),
			"vote":      from.RequestVote("b", "b", &raft.RequestVoteRequest{RPCHeader: h, Term: 9}, &raft.RequestVoteResponse{}),
			"pre-vote":  from.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{RPCHeader: h, Term: 9}, &raft.RequestPreVoteResponse{}),
			"timeout":   from.TimeoutNow("b", "b", &raft.TimeoutNowRequest{RPCHeader: h}, &raft.TimeoutNowResponse{}),
			"snapshot": from.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{RPCHeader: h, Term: 9, Size: 3},
				&raft.InstallSnapshotResponse{}, strings.NewReader("abc")),
		} {
			if !object.IsKind(err, object.KindPermission) || !strings.Contains(err.Error(), "node a sent") {
				t.Errorf("header %d, %s: %v", i, what, err)
			}
		}
	}
	select {
	case rpc := <-to.Consumer():
		t.Errorf("%+v reached the group", rpc.Command)
	default:
	}
	if n := warned.n.Load(); n != 1 {
		t.Errorf("it was logged %d times within a minute", n)
	}
}

func TestLogged(t *testing.T) {
	t.Parallel()
	var l logged
	now := int64(5)
	if !l.due("a", now) || l.due("a", now+int64(logEvery)-1) || !l.due("b", now) || !l.due("a", now+int64(logEvery)) {
		t.Error("not once a minute for each peer")
	}
	for i := range 3 * logPeers {
		l.due(fmt.Sprint(i), now)
	}
	if len(l.last) > logPeers || l.due("new", now) {
		t.Errorf("%d peers are remembered", len(l.last))
	}
	if now += 2 * int64(time.Minute); !l.due("new", now) || len(l.last) != 1 {
		t.Errorf("%d peers after two minutes", len(l.last))
	}
}

// TestHeadersTravel has a layer above put more before the address than the node.
func TestHeadersTravel(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	from, err := a.Group(1)
	must(t, err)
	to, err := b.Group(1)
	must(t, err)
	h := headerFrom("a#3", "b#9\x00a#3\x00a")
	got := make(chan raft.RPCHeader, 1)
	go func() {
		for {
			select {
			case rpc := <-to.Consumer():
				seen, _ := headerOf(rpc.Command)
				got <- raft.RPCHeader{ProtocolVersion: seen.ProtocolVersion, ID: bytes.Clone(seen.ID), Addr: bytes.Clone(seen.Addr)}
				answer := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("b#9"), Addr: []byte("b#9\x00b")}
				switch c := rpc.Command.(type) {
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{RPCHeader: answer, Term: c.Term}, nil)
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: answer, Term: c.Term, Success: true}, nil)
				}
			case <-to.ctx.Done():
				return
			}
		}
	}()
	check := func(what string, answer raft.RPCHeader) {
		t.Helper()
		if seen := <-got; fmt.Sprint(seen) != fmt.Sprint(h) || string(answer.ID) != "b#9" || string(answer.Addr) != "b#9\x00b" {
			t.Errorf("%s: header %v, answered with %v", what, seen, answer)
		}
	}
	var resp raft.AppendEntriesResponse
	must(t, from.AppendEntries("b#9", "b", &raft.AppendEntriesRequest{RPCHeader: h, Term: 2}, &resp))
	check("heartbeat", resp.RPCHeader)
	must(t, from.AppendEntries("b#9", "b", &raft.AppendEntriesRequest{RPCHeader: h, Term: 2, PrevLogEntry: 4, PrevLogTerm: 1}, &resp))
	check("append", resp.RPCHeader)
	must(t, from.Probe("b#9", "b", &raft.AppendEntriesRequest{RPCHeader: h, Term: 2}, &resp))
	check("probe", resp.RPCHeader)
	var vote raft.RequestVoteResponse
	must(t, from.RequestVote("b#9", "b", &raft.RequestVoteRequest{RPCHeader: h, Term: 2}, &vote))
	check("vote", vote.RPCHeader)
	// Confirm's own heartbeats carry what raft sent that peer.
	must(t, from.Confirm(t.Context(), 2, []string{"b"}, 1))
	check("confirm", resp.RPCHeader)
}
