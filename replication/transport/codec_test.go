package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func sampleRequests() []any {
	h := headerFrom("node-1#7", "node-1")
	at := time.Unix(1700000000, 123456789)
	return []any{
		&raft.AppendEntriesRequest{RPCHeader: h, Term: 7},
		&raft.AppendEntriesRequest{RPCHeader: h, Term: 1 << 60, PrevLogEntry: 41, PrevLogTerm: 6, LeaderCommitIndex: 40, Entries: []*raft.Log{
			{Index: 42, Term: 7, Type: raft.LogCommand, Data: []byte("data"), AppendedAt: at},
			{Index: 43, Term: 7, Type: raft.LogNoop},
			{Index: 44, Term: 7, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte{9}, 300), Extensions: []byte("ext")},
		}},
		&raft.RequestVoteRequest{RPCHeader: h, Term: 3, LastLogIndex: 2, LastLogTerm: 1, LeadershipTransfer: true},
		&raft.RequestPreVoteRequest{RPCHeader: h, Term: 3, LastLogIndex: 2, LastLogTerm: 1},
		&raft.TimeoutNowRequest{RPCHeader: h},
		&raft.InstallSnapshotRequest{RPCHeader: h, SnapshotVersion: 1, Term: 4, LastLogIndex: 9, LastLogTerm: 3,
			Configuration: []byte("conf"), ConfigurationIndex: 5, Size: 1 << 40},
	}
}

// headerFrom is a header as raft fills it: the sender's replica id, and where it lives.
func headerFrom(id, node string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(node)}
}

func TestRequestsSurviveTheWire(t *testing.T) {
	t.Parallel()
	for _, want := range sampleRequests() {
		id, got, err := decodeRequest(appendRequest(nil, 8191, want))
		must(t, err)
		if a, is := want.(*raft.AppendEntriesRequest); is && a.Entries == nil {
			a.Entries = got.(*raft.AppendEntriesRequest).Entries // nil or empty
		}
		if id != 8191 || !reflect.DeepEqual(got, want) {
			t.Fatalf("%T became\n%+v, was\n%+v", want, got, want)
		}
	}
}

func TestResponsesSurviveTheWire(t *testing.T) {
	t.Parallel()
	h := headerFrom("n", "n")
	for _, want := range []any{
		&raft.AppendEntriesResponse{RPCHeader: h, Term: 1, LastLog: 2, Success: true},
		&raft.AppendEntriesResponse{RPCHeader: h, Term: 1, LastLog: 2, NoRetryBackoff: true},
		&raft.RequestVoteResponse{RPCHeader: h, Term: 9, Granted: true},
		&raft.RequestPreVoteResponse{RPCHeader: h, Term: 9},
		&raft.InstallSnapshotResponse{RPCHeader: h, Term: 9, Success: true},
		&raft.TimeoutNowResponse{RPCHeader: h},
	} {
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface()
		must(t, (&reader{b: appendResponse(nil, want, nil)}).response(got))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v became %+v", want, got)
		}
	}
	err := (&reader{b: appendResponse(nil, nil, object.Errorf(object.KindOverload, "busy"))}).response(&raft.TimeoutNowResponse{})
	wantKind(t, err, object.KindOverload)
}

func TestSplit(t *testing.T) {
	t.Parallel()
	a := &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 10, PrevLogTerm: 4, LeaderCommitIndex: 9}
	for i := range 40 {
		a.Entries = append(a.Entries, &raft.Log{Index: uint64(11 + i), Term: 5, Data: make([]byte, i*1000)})
	}
	index, term := a.PrevLogEntry, a.PrevLogTerm
	parts := split(a, 64<<10)
	for _, p := range parts {
		if p.PrevLogEntry != index || p.PrevLogTerm != term || p.Term != 5 || p.LeaderCommitIndex != 9 || len(p.Entries) == 0 {
			t.Fatalf("a part does not follow the one before: %+v", p)
		}
		last := p.Entries[len(p.Entries)-1]
		index, term = last.Index, last.Term
	}
	if index != 50 || len(parts) < 12 {
		t.Fatalf("%d parts up to index %d", len(parts), index)
	}
	if empty := split(&raft.AppendEntriesRequest{Term: 1}, 10); len(empty) != 1 || empty[0].Term != 1 {
		t.Fatalf("a heartbeat became %d parts", len(empty))
	}
}

func FuzzRequest(f *testing.F) {
	for _, r := range sampleRequests() {
		f.Add(appendRequest(nil, 3, r))
	}
	f.Add([]byte{0, 1, 3, 1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, cmd, err := decodeRequest(b)
		if err != nil {
			return
		}
		id2, again, err := decodeRequest(appendRequest(nil, id, cmd))
		if err != nil || id2 != id || !reflect.DeepEqual(cmd, again) {
			t.Fatalf("%+v became %+v (%v)", cmd, again, err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add(appendResponse(nil, &raft.AppendEntriesResponse{Term: 3, LastLog: 8, Success: true}, nil))
	f.Add(appendResponse(nil, nil, io.EOF))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, resp := range []any{&raft.AppendEntriesResponse{}, &raft.RequestVoteResponse{}, &raft.TimeoutNowResponse{}} {
			_ = (&reader{b: b}).response(resp)
		}
		_, _ = decodeAnswer(b)
		left := 1
		beats := []*beat{nil}
		_ = (&beats0).answered(beats, &left, b)
	})
}

var beats0 = beats{p: &peer{node: "n"}}

func FuzzFrame(f *testing.F) {
	f.Add(finishFrame(append(newFrame(frameCall, 8), "payload"...), 12))
	f.Add(append(finishFrame(newFrame(framePing, 0), 0), finishFrame(newFrame(framePong, 0), 1)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		var again []byte
		for {
			fr, err := readFrame(r, 1<<16)
			if errors.Is(err, io.EOF) {
				if !bytes.Equal(again, b) {
					t.Fatal("what was read is not what was there")
				}
				return
			}
			if err != nil {
				return
			}
			again = append(again, finishFrame(append(newFrame(fr.typ, len(fr.payload)), fr.payload...), fr.id)...)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add((hello{min: 1, max: 2, role: roleBulk, peer: Peer{"c", "n", "a:1"}, release: "r", meant: "m"}).encode(frameHello)[frameHeader:])
	f.Add((hello{min: 1, max: 2, err: object.Errorf(object.KindVersion, "no")}).encode(frameWelcome)[frameHeader:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		again, err := decodeHello(h.encode(frameHello)[frameHeader:])
		if err != nil || again.peer != h.peer || again.min != h.min || again.meant != h.meant {
			t.Fatalf("%+v became %+v (%v)", h, again, err)
		}
	})
}
