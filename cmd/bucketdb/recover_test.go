package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/replication/control"
)

func listened(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// pair is a cluster of two whose partitions all are on both, and both are stopped.
func pair(t *testing.T) (metadata []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var nodes []*replication.Node
	first := replication.Config{}
	for _, id := range []string{"n1", "n2"} {
		dir := t.TempDir()
		cfg := replication.Config{NodeID: id, API: "127.0.0.1:1", Peer: listened(t), MetadataPath: filepath.Join(dir, "meta"), StoragePaths: []string{filepath.Join(dir, "data")}, Partitions: 2}
		if id == "n1" {
			first = cfg
		} else {
			cfg.Join = []string{first.Peer}
		}
		n, err := replication.Open(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		nodes, metadata = append(nodes, n), append(metadata, cfg.MetadataPath)
	}
	for both := false; !both; {
		s, err := nodes[0].Control(ctx)
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
		both = err == nil
		for i := 0; both && i < len(s.Partitions); i++ {
			r := s.Partitions[i].Replicas
			both = len(r) == 2 && r[0].State == control.InForce && r[1].State == control.InForce
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return metadata
}

// The command shows, changes nothing without --force, and recovers one node and several.
func TestRecoverCommand(t *testing.T) {
	dirs := pair(t)
	recover := func(code int, says string, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		got := run(t.Context(), append([]string{"cluster", "recover"}, args...), streams{in: strings.NewReader(""), out: &out, err: &errs}, noEnv)
		if got != code || !strings.Contains(out.String()+errs.String(), says) {
			t.Errorf("%q ended with %d:\n%s%s", args, got, &out, &errs)
		}
	}
	tmp := t.TempDir()
	r1, r2, plan := filepath.Join(tmp, "n1.json"), filepath.Join(tmp, "n2.json"), filepath.Join(tmp, "plan.json")
	recover(exitUsage, "goes with --metadata alone", "--report", r1, "--lost", "n2")
	recover(exitFailure, "not the metadata path", "--metadata", tmp, "--lost", "n2")
	recover(exitFailure, "more nodes, n2", "--metadata", dirs[0])
	recover(exitFailure, `no node "n7"`, "--metadata", dirs[0], "--lost", "n2,n7")
	recover(exitFailure, "more nodes, n2", "--metadata", dirs[0], "--force")
	recover(exitOK, "node n1 of cluster", "--metadata", dirs[0], "--report", r1)
	recover(exitOK, "node n2 of cluster", "--metadata", dirs[1], "--report", r2)
	recover(exitOK, "nothing\n", "--plan", plan, r1, r2)
	recover(exitFailure, "every partition has a majority left", "--metadata", dirs[0], "--plan", plan, "--force")
	recover(exitFailure, "no plan", "--metadata", dirs[0], "--plan", r1, "--force")
	recover(exitOK, "Nothing was changed", "--metadata", dirs[0], "--lost", "n2")
	recover(exitOK, "3 of 3 partitions have no majority left", "--metadata", dirs[0], "--lost", "n2", "--force")
	recover(exitFailure, "leave it out", "--metadata", dirs[0], "--lost", "n2", "--force")
	recover(exitFailure, "every partition has a majority left", "--metadata", dirs[0], "--force")
}
