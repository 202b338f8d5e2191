package server

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What steers the cluster, by hand and through the client; each answer is held
// against the contract.
func TestSteerOverREST(t *testing.T) {
	f := newFixture(t, Options{})
	var nodes api.Nodes
	if err := json.Unmarshal([]byte(f.want(200, "GET", "/cluster/nodes", "").body), &nodes); err != nil || len(nodes.Nodes) != 1 || nodes.Old || !nodes.Nodes[0].Reachable {
		t.Fatalf("%+v, %v", nodes, err)
	}
	f.want(204, "PATCH", "/cluster/nodes/node1", `{"weight": 50, "zone": "a"}`)
	f.want(204, "DELETE", "/cluster/nodes/node1/drain", "")
	f.want(400, "POST", "/cluster/nodes/node1/drain", "") // the last
	f.want(404, "POST", "/cluster/nodes/nobody/drain", "")
	f.want(409, "DELETE", "/cluster/nodes/node1", "")
	f.want(404, "DELETE", "/cluster/nodes/nobody", "")
	var set api.Settings
	if err := json.Unmarshal([]byte(f.want(200, "PATCH", "/cluster/settings", `{"moves": 3, "gone_after": "90s"}`).body), &set); err != nil || set.Moves != 3 || set.GoneAfter != "1m30s" || set.RF != 3 {
		t.Errorf("%+v, %v", set, err)
	}
	for target, bodies := range map[string][]string{
		"/cluster/settings":    {`{"movs": 3}`, `{"rf": 0}`, `{"gone_after": "soon"}`, `{"gone_after": "1ms"}`, `3`, ``},
		"/cluster/nodes/node1": {`{}`, `{"weight": -1}`, `{"weight": 2000000}`, `{"wait": 1}`},
	} {
		for _, body := range bodies {
			if a := f.ask("PATCH", target, body); a.status != 400 {
				t.Errorf("PATCH %s %s: %d %s", target, body, a.status, a.body)
			}
		}
	}
	if a := f.ask("POST", "/cluster/nodes/node1/drain", "", "If-Match: \"x\""); a.status != 501 {
		t.Errorf("a condition that nobody judges: %d", a.status)
	}
	for target, code := range map[string]int{"/cluster/partitions/1": 400, "/cluster/partitions/9": 404, "/cluster/partitions/x": 400, "/cluster/partitions/65536": 400} {
		f.want(code, "POST", target+"/transfer", `{}`)
	}
	for _, body := range []string{``, `{"nod": "node1"}`, `{"keep": "soon"}`, `{"keep": "-1s"}`, `{"keep": "25h", "node": "node1"}`} {
		f.want(400, "POST", "/cluster/partitions/1/transfer", body)
	}
	f.want(404, "POST", "/cluster/partitions/1/transfer", `{"node": "nobody"}`)
	f.want(200, "POST", "/cluster/partitions/1/transfer", `{"node": "node1", "keep": "1s"}`)
	ctx := t.Context()
	if l, err := f.client.TransferLeadership(ctx, 0, api.LeadershipTransfer{Node: "node1"}); err != nil || l != (api.Leadership{Leader: "node1"}) {
		t.Errorf("%+v, %v", l, err)
	}
	if got, err := f.client.ClusterSettings(ctx); err != nil || got != set {
		t.Errorf("%+v, %v", got, err)
	}
	if err := f.client.Drain(ctx, "node1", false); !object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), "-join") {
		t.Errorf("%v", err)
	}
	weight := uint32(70)
	if err := f.client.ChangeNode(ctx, "node1", api.NodeChange{Weight: &weight}); err != nil {
		t.Error(err)
	}
	c, err := f.client.Cluster(ctx)
	if err != nil || c.Old || c.Settings != set || len(c.Nodes) != 1 || c.Nodes[0].Weight != 70 || c.Nodes[0].Zone != "a" {
		t.Errorf("%+v, %v", c, err)
	}
	p, err := f.client.ClusterPartitions(ctx)
	if err != nil || len(p.Partitions) != 5 || p.Partitions[2].Leader != "node1" || !p.Partitions[2].Settled || len(p.Groups) == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	page := f.want(200, "GET", "/metrics", "").body
	for _, want := range []string{"bucketdb_under_replicated_partitions 0", "bucketdb_repaired_chunks_total 0", "bucketdb_chunk_bytes_to_go 0", "bucketdb_corrupt_chunks_total 0", `bucketdb_moves_left{what="partitions"}`, `bucketdb_nodes{state="up"} 1`} {
		if !strings.Contains(page, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
