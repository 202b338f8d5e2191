package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// command runs the command line against an endpoint.
func command(t *testing.T, endpoint string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), append(args, "-endpoint", endpoint), streams{in: strings.NewReader(""), out: &o, err: &e}, noEnv)
	return code, o.String(), e.String()
}

// aloneNode is a node that others could join, behind a server.
func aloneNode(t *testing.T) (endpoint string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := free.Addr().String()
	free.Close()
	node, err := replication.Open(t.Context(), replication.Config{NodeID: "n1", API: l.Addr().String(), Peer: peer,
		MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 4, ChunkSize: 64 << 10, BufferMemory: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	s, err := server.New(node, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Shutdown(t.Context()) })
	return l.Addr().String()
}

// What the cluster's commands say of a real node, and what they refuse.
func TestClusterCommands(t *testing.T) {
	at := aloneNode(t)
	for _, tc := range []struct {
		args string
		code int
		says []string
	}{
		{"cluster rebalance -timeout 30s", 0, []string{"Everything is where it shall be"}},
		{"cluster status", 0, []string{"member      n1, up", "health      good", "to move     nothing", "5, 5 with a leader"}},
		{"cluster nodes", 0, []string{"NODE", "n1    up", "CHUNK GROUPS", " 1024 "}},
		{"cluster partitions", 0, []string{"PARTITION", "n1*", "1/1", "COPIES OR SHARDS"}},
		{"cluster partitions -unsettled", 0, []string{"PARTITION"}},
		{"cluster join", 0, []string{"bucketdb -id n2 -join 127.0.0.1:", "-partitions 4", "no secret"}},
		{"cluster join n7", 0, []string{"-id n7", "./n7/metadata"}},
		{"cluster join n1", 1, []string{`has a node "n1" already`}},
		{"cluster weight n1 42", 0, []string{"weight 42"}},
		{"cluster weight n1 much", 2, []string{"whole number"}},
		{"cluster weight n1", 2, []string{"--help"}},
		{"cluster zone n1 cellar", 0, []string{`zone "cellar"`}},
		{"cluster drain n1", 1, []string{"the last one that takes data", "-join"}},
		{"cluster drain --undo n1", 0, []string{"takes data again"}},
		{"cluster drain n9 -no-wait", 1, []string{"no node", "n9"}},
		{"cluster remove n1", 1, []string{"drain it", "cluster nodes"}},
		{"cluster transfer 1 n1", 0, []string{"n1 leads partition 1", "after 10m"}},
		{"cluster transfer 0 n1 -keep 90s", 0, []string{"n1 leads partition 0", "1m30s"}},
		{"cluster transfer 1", 1, []string{"no other replica", "cluster partitions"}},
		{"cluster transfer 1 n9", 1, []string{`no node "n9"`}},
		{"cluster transfer 77 n1", 1, []string{"no partition 77", "0 (the control group) to 4"}},
		{"cluster transfer one", 2, []string{"must be a number"}},
		{"cluster transfer 1 -keep 0s", 2, []string{"--keep"}},
		{"cluster transfer", 2, []string{"--help"}},
		{"cluster settings", 0, []string{"rf               3", "gone-after       10m0s"}},
		{"cluster settings rf=2 gone-after=90s group_moves=9", 0, []string{"rf               2", "gone-after       1m30s", "group-moves      9"}},
		{"cluster settings repair-rate=16M rewrite_rate=2048", 0, []string{"repair-rate      16M", "rewrite-rate     2K"}},
		{"cluster settings repair-rate=0", 0, []string{"repair-rate      0", "rewrite-rate     2K"}},
		{"cluster settings repair-rate=slow", 2, []string{"repair-rate", "not a size"}},
		{"cluster settings rewrite-rate=1", 1, []string{"1024 bytes a second"}},
		{"cluster settings rf=none", 2, []string{"whole number"}},
		{"cluster settings fr=1", 2, []string{"no setting", "groups-per-node"}},
		{"cluster settings rf=99", 1, []string{"choose 1 to"}},
		{"health", 0, []string{"is ready"}},
	} {
		code, out, errs := command(t, at, strings.Fields(tc.args)...)
		if code != tc.code {
			t.Errorf("%s: exit code %d, want %d", tc.args, code, tc.code)
		}
		for _, want := range tc.says {
			if !strings.Contains(out+errs, want) {
				t.Errorf("%s: %q is missing in\n%s%s", tc.args, want, out, errs)
			}
		}
	}
	for args, into := range map[string]any{"cluster status": &api.Cluster{}, "cluster nodes": &api.Nodes{}, "cluster partitions": &api.Placement{}, "cluster settings": &api.Settings{}, "cluster join": &joining{}} {
		code, out, errs := command(t, at, append(strings.Fields(args), "-json")...)
		d := json.NewDecoder(strings.NewReader(out))
		d.DisallowUnknownFields()
		if err := d.Decode(into); code != 0 || err != nil {
			t.Errorf("%s -json: %d, %v: %s%s", args, code, err, out, errs)
		}
	}
}

// A secret is asked for where the nodes can be reached from other machines.
func TestHowToJoin(t *testing.T) {
	s := api.Cluster{Nodes: []api.ClusterNode{{ID: "a", State: "up", Peer: "10.0.0.1:8080"}, {ID: "n2", State: "removed", Peer: "10.0.0.2:8080"}, {ID: "c", State: "up", Peer: "10.0.0.3:8080"}}}
	j, err := howToJoin(s, "")
	if err != nil || j.ID != "n4" || !j.Secret || strings.Join(j.Join, ",") != "10.0.0.1:8080,10.0.0.3:8080" || !strings.Contains(j.Command, "--cluster-secret-file") {
		t.Errorf("%+v, %v", j, err)
	}
	if j, err := howToJoin(s, "n2"); err != nil || j.ID != "n2" {
		t.Errorf("the name of a removed node: %+v, %v", j, err)
	}
	if _, err := howToJoin(api.Cluster{Nodes: []api.ClusterNode{{ID: "a", State: "up"}}}, ""); err == nil || !strings.Contains(complaint(err), "-http") {
		t.Errorf("without a port: %v", err)
	}
}

// drain waits until the node is empty; it ends where it never will be, when its time
// is over, and when somebody takes it back.
func TestDrainWaits(t *testing.T) {
	var mu sync.Mutex
	var answers []api.ClusterNode // one after the other, the last again and again
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		n := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		if err := json.NewEncoder(w).Encode(api.Nodes{Nodes: []api.ClusterNode{n}}); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	busy := api.ClusterNode{ID: "n3", State: "draining", Replicas: 4, Groups: 9}
	stuck := api.ClusterNode{ID: "n3", State: "draining", Replicas: 1, PlannedReplicas: 1, Note: "keeps 1 replicas: add a node"}
	for name, tc := range map[string]struct {
		answers []api.ClusterNode
		code    int
		says    string
	}{
		"done":       {[]api.ClusterNode{busy, {ID: "n3", State: "draining", Empty: true}}, 0, "n3 is empty"},
		"stuck":      {[]api.ClusterNode{busy, stuck}, 1, "add a node"},
		"taken back": {[]api.ClusterNode{busy, {ID: "n3", State: "up"}}, 1, "taken back"},
		"too long":   {[]api.ClusterNode{busy}, 1, "goes on by itself"},
		"vanished":   {[]api.ClusterNode{{ID: "other"}}, 1, "no node"},
	} {
		mu.Lock()
		answers = tc.answers
		mu.Unlock()
		began := time.Now()
		code, out, errs := command(t, srv.URL, "cluster", "drain", "n3", "-timeout", "2s")
		if code != tc.code || !strings.Contains(out+errs, tc.says) {
			t.Errorf("%s: %d after %v, %s%s", name, code, time.Since(began), out, errs)
		}
	}
}
