package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// ports of every node that has a network namespace, and an address, of its own.
const (
	apiPort  = 9080
	peerPort = 8080
)

// ClusterOptions say what a cluster is made of.
type ClusterOptions struct {
	Binary string
	Dir    string   // a directory below it for each node
	Nodes  int      // to begin with
	Args   []string // further flags of every node
	Env    []string // added to the environment of every node
	// Spaces gives each node a network namespace, so that Cut works; it takes root,
	// ip and iptables. Otherwise all are on loopback.
	Spaces bool
}

// Cluster is several nodes that found and join a cluster. Not safe for
// concurrent use, except for its clients.
type Cluster struct {
	Nodes []*Node

	opts   ClusterOptions
	secret string
	net    *network // nil: loopback
}

// NewCluster describes a cluster that is not started yet. Close it in the end.
func NewCluster(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	c := &Cluster{opts: o, secret: filepath.Join(o.Dir, "secret")}
	if err := os.WriteFile(c.secret, []byte(transport.NewSecret().Reveal()+"\n"), 0o600); err != nil {
		return nil, err
	}
	if o.Spaces {
		w, err := newNetwork(ctx)
		if err != nil {
			return nil, err
		}
		c.net = w
	}
	for range o.Nodes {
		if _, err := c.Add(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Add describes one node more, which joins when it is started.
func (c *Cluster) Add(ctx context.Context) (*Node, error) {
	i := len(c.Nodes)
	n, err := NewNode(c.opts.Binary, filepath.Join(c.opts.Dir, fmt.Sprintf("n%d", i+1)), c.opts.Args...)
	if err != nil {
		return nil, err
	}
	n.ID, n.Secret, n.Env = fmt.Sprintf("n%d", i+1), c.secret, c.opts.Env
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return nil, err
	}
	if c.net == nil {
		n.Peer, err = FreeAddress()
	} else {
		var address string
		n.Space, address, err = c.net.add(ctx)
		n.API, n.Peer = fmt.Sprintf("%s:%d", address, apiPort), fmt.Sprintf("%s:%d", address, peerPort)
		n.Args = append(slices.Clone(n.Args), "-allow-anonymous")
	}
	if err != nil {
		return nil, err
	}
	for _, other := range c.Nodes {
		n.Join = append(n.Join, other.Peer)
	}
	c.Nodes = append(c.Nodes, n)
	return n, nil
}

// Start founds the cluster with the first node, has the others join, and
// returns when all are ready.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.Nodes[0].Start(ctx); err != nil {
		return err
	}
	var g errgroup.Group
	for _, n := range c.Nodes[1:] {
		g.Go(func() error { return n.Start(ctx) })
	}
	return g.Wait()
}

// Cut puts these cuts in the place of those that were; none heals the network.
func (c *Cluster) Cut(ctx context.Context, cuts ...Cut) error {
	if c.net == nil {
		return errors.New("harness: this cluster is on loopback, where nothing can be cut")
	}
	return c.net.set(ctx, cuts)
}

// Endpoints are the URLs of all nodes, that of node first before the others.
func (c *Cluster) Endpoints(first int) (urls []string) {
	for i := range c.Nodes {
		urls = append(urls, c.Nodes[(first+i)%len(c.Nodes)].URL())
	}
	return urls
}

// Client is a client of all nodes that begins with node first.
func (c *Cluster) Client(first int, o api.ClientOptions) (*api.Client, error) {
	return api.NewClient(c.Endpoints(first), o)
}

// Ready waits until every node that runs answers /readyz.
func (c *Cluster) Ready(ctx context.Context) error {
	for _, n := range c.Nodes {
		if n.Running() {
			if err := n.Ready(ctx); err != nil {
				return fmt.Errorf("node %s is not ready: %w\n%s", n.ID, err, n.Log(4<<10))
			}
		}
	}
	return nil
}

// Settled waits until the map that node at shows gives every partition this many
// replicas, all of them voters in force, and that no chunk group is on its way.
func (c *Cluster) Settled(ctx context.Context, at *Node, voters int, limit time.Duration) error {
	cl, err := at.Client(api.ClientOptions{Retries: -1})
	if err != nil {
		return err
	}
	defer cl.Close()
	return Poll(ctx, limit, func() error {
		s, err := cl.ClusterPartitions(ctx)
		if err != nil {
			return err
		}
		if s.Old {
			return errors.New("the control group does not answer")
		}
		return settled(s, voters)
	})
}

// Balanced waits until node at sees everything where it shall be: these nodes, and
// no others, are up and have what is planned for them.
func (c *Cluster) Balanced(ctx context.Context, at *Node, ids []string, limit time.Duration) error {
	cl, err := at.Client(api.ClientOptions{Retries: -1})
	if err != nil {
		return err
	}
	defer cl.Close()
	return Poll(ctx, limit, func() error {
		s, err := cl.Cluster(ctx)
		if err != nil {
			return err
		}
		var up []string
		for _, n := range s.Nodes {
			if n.State == "up" {
				up = append(up, n.ID)
			}
			if n.State == "up" && n.Replicas != n.PlannedReplicas || n.State != "up" && n.State != "removed" {
				return fmt.Errorf("node %s is %s with %d of %d replicas: %s", n.ID, n.State, n.Replicas, n.PlannedReplicas, n.Note)
			}
		}
		if slices.Sort(up); !slices.Equal(up, ids) || !s.Progress.Done || s.Old {
			return fmt.Errorf("%v are up, not %v, or not all is done: %+v", up, ids, s.Progress)
		}
		return nil
	})
}

// settled says which partitions have not that many voters, or others beside them.
func settled(s api.Placement, voters int) error {
	var short []string
	for _, p := range s.Partitions {
		good := 0
		for _, r := range p.Replicas {
			if r.State == "in force" && !r.Lost {
				good++
			}
		}
		control := p.ID == object.Control && good >= voters // which may have more, and learners
		if !control && (good != voters || len(p.Replicas) != voters) {
			short = append(short, fmt.Sprintf("%d %v", p.ID, p.Replicas))
		}
	}
	for _, g := range s.Groups {
		if voters >= g.Width && (g.Joint > 0 || g.Behind > 0 || g.Short > 0) {
			return fmt.Errorf("chunk groups are on their way: %+v", g)
		}
	}
	if len(short) > 0 || len(s.Partitions) == 0 {
		return fmt.Errorf("%d of %d partitions do not have %d voters: %s", len(short), len(s.Partitions), voters, strings.Join(short[:min(len(short), 5)], "; "))
	}
	return nil
}

// Wipe removes everything that a stopped node has stored, as a new disk would.
func (n *Node) Wipe() error {
	if n.Running() {
		return fmt.Errorf("harness: node %s runs", n.ID)
	}
	return errors.Join(os.RemoveAll(n.Metadata()), os.RemoveAll(n.Storage()))
}

// Close kills what runs and removes the network. The directories stay.
func (c *Cluster) Close() (err error) {
	for _, n := range c.Nodes {
		if n.Running() {
			_ = n.Resume() // a stopped process takes SIGKILL too, but its threads end sooner
			err = errors.Join(err, n.Kill())
		}
	}
	if c.net != nil {
		err = errors.Join(err, c.net.close())
	}
	return err
}

// Logs is the end of what each node logged.
func (c *Cluster) Logs(last int) string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "--- %s\n%s\n", n.ID, n.Log(last))
	}
	return b.String()
}
