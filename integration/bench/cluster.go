package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/server/api"
)

const (
	clusterNodes = 3
	partitions   = 64
	settleTime   = 5 * time.Minute
)

// cluster measures three nodes on loopback beside one, and beside the Raft layer alone.
func (b *bench) cluster() error {
	dir, err := b.sub("cluster")
	if err != nil {
		return err
	}
	c, err := harness.NewCluster(b.ctx, harness.ClusterOptions{Binary: b.binary, Dir: dir, Nodes: clusterNodes, Args: []string{"--log-level", "warn"}})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := errors.Join(c.Start(b.ctx), c.Balanced(b.ctx, c.Nodes[0], []string{"n1", "n2", "n3"}, settleTime)); err != nil {
		return err
	}
	if err := b.clusterIdle(c); err != nil {
		return err
	}
	if err := b.clusterPuts(c); err != nil {
		return err
	}
	if err := b.clusterLarge(c); err != nil {
		return err
	}
	if err := b.failover(c); err != nil {
		return err
	}
	return b.rebalance(c)
}

// clusterIdle measures what nodes cost that have nothing to do.
func (b *bench) clusterIdle(c *harness.Cluster) error {
	const watch = 10 * time.Second
	var before, after [clusterNodes]time.Duration
	var err error
	for i, n := range c.Nodes {
		if before[i], err = n.CPUTime(); err != nil {
			return err
		}
	}
	time.Sleep(watch) // what is measured is doing nothing
	most := time.Duration(0)
	for i, n := range c.Nodes {
		if after[i], err = n.CPUTime(); err != nil {
			return err
		}
		most = max(most, after[i]-before[i])
	}
	b.row("CPU of an idle node of three", fmt.Sprintf("%.1f%% of a core", 100*most.Seconds()/watch.Seconds()), "", "", "", "10%")
	return nil
}

// latencies collects how long operations took.
type latencies struct {
	mu   sync.Mutex
	took []time.Duration
}

func (l *latencies) time(do func() error) error {
	start := time.Now()
	err := do()
	took := time.Since(start)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	return err
}

func (l *latencies) String() string {
	slices.Sort(l.took)
	at := func(percent int) time.Duration {
		return l.took[min(len(l.took)*percent/100, len(l.took)-1)].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v", at(50), at(99))
}

// putRate is how many durable 4 KiB PUTs a second so many clients get done, spread over the nodes.
func (b *bench) putRate(c *http.Client, urls []string, clients int) (float64, *latencies, error) {
	body, l := noise(smallSize), &latencies{}
	rate, err := load(b.ctx, clients, 5*time.Second, func(w, i int) error {
		return l.time(func() error {
			_, err := ask(c, "PUT", fmt.Sprintf("%s/objects/bench/%d-%d/%d", urls[w%len(urls)], clients, w, i), body)
			return err
		})
	})
	return rate, l, err
}

func (b *bench) clusterPuts(c *harness.Cluster) error {
	alone, err := b.start("cluster-alone")
	if err != nil {
		return err
	}
	defer func() { _ = alone.Kill() }() // it is gone after an error
	dir, err := b.sub("cluster-raft")
	if err != nil {
		return err
	}
	r, err := startRaft(b.ctx, dir, partitions)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }()
	web := browser()
	for _, url := range []string{alone.URL(), c.Nodes[0].URL()} {
		if _, err := ask(web, "POST", url+"/buckets", []byte(`{"name":"bench"}`)); err != nil {
			return err
		}
	}
	entry := noise(smallSize + 256) // a PUT's entry has a name and attributes beside its bytes
	for _, clients := range []int{1, 16, 64, 256} {
		ours, took, err := b.putRate(web, c.Endpoints(0), clients)
		if err != nil {
			return err
		}
		single, tookAlone, err := b.putRate(web, []string{alone.URL()}, clients)
		if err != nil {
			return err
		}
		bare, err := load(b.ctx, clients, 5*time.Second, func(w, i int) error { return r.commit(b.ctx, (w*31+i)%partitions, entry) })
		if err != nil {
			return err
		}
		b.rate(fmt.Sprintf("three nodes, 4 KiB PUT, %d clients", clients), ours, single, "/s", fmt.Sprintf("one node (%v; three: %v)", tookAlone, took), "")
		goal := ""
		if clients == 64 {
			goal = "0.4"
		}
		b.rate("the same", ours, bare, "/s", "the Raft layer alone", goal)
	}
	return nil
}

// clusterLarge measures large objects beside the same on one node.
func (b *bench) clusterLarge(c *harness.Cluster) error {
	alone, err := b.start("cluster-large")
	if err != nil {
		return err
	}
	defer func() { _ = alone.Kill() }() // it is gone after an error
	data := noise(largeSize)
	var puts, gets [2]float64
	for i, urls := range [][]string{c.Endpoints(0), {alone.URL()}} {
		client, err := api.NewClient(urls, api.ClientOptions{})
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.CreateBucket(b.ctx, "large", ""); err != nil {
			return err
		}
		puts[i], err = load(b.ctx, 1, 5*time.Second, func(_, n int) error {
			_, err := client.Put(b.ctx, "large", fmt.Sprint(n%4), bytes.NewReader(data), api.PutOptions{})
			return err
		})
		if err != nil {
			return err
		}
		web := browser()
		gets[i], err = load(b.ctx, 1, 5*time.Second, func(_, n int) error {
			_, err := ask(web, "GET", urls[n%len(urls)]+"/objects/large/0", nil)
			return err
		})
		if err != nil {
			return err
		}
	}
	b.rate("three nodes, 64 MiB PUT", puts[0]*64, puts[1]*64, "MiB/s", "one node", "")
	b.rate("three nodes, 64 MiB GET", gets[0]*64, gets[1]*64, "MiB/s", "one node", "")
	return nil
}

// failover kills a node and measures until every partition takes writes again: until
// an object in each of many directories has been written through the others.
func (b *bench) failover(c *harness.Cluster) error {
	const directories = 4 * partitions
	write := func(ctx context.Context, client *api.Client) error {
		var g errgroup.Group
		g.SetLimit(32)
		for i := range directories {
			g.Go(func() error {
				_, err := client.Put(ctx, "bench", fmt.Sprintf("d%d/x", i), bytes.NewReader([]byte("x")), api.PutOptions{})
				return err
			})
		}
		return g.Wait()
	}
	client, err := api.NewClient(c.Endpoints(0)[1:], api.ClientOptions{})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := write(b.ctx, client); err != nil {
		return err
	}
	start := time.Now()
	if err := write(b.ctx, client); err != nil {
		return err
	}
	usual := time.Since(start)
	if err := c.Nodes[0].Kill(); err != nil {
		return err
	}
	start = time.Now()
	if err := write(b.ctx, client); err != nil {
		return err
	}
	b.row("all partitions writable after a kill", (time.Since(start) - usual).Round(10*time.Millisecond).String(), "", fmt.Sprintf("%d writes take %v", directories, usual.Round(time.Millisecond)), "", "3s")
	return c.Nodes[0].Start(b.ctx)
}

// rebalance measures how fast a fourth node gets its share.
func (b *bench) rebalance(c *harness.Cluster) error {
	client, err := c.Client(0, api.ClientOptions{})
	if err != nil {
		return err
	}
	defer client.Close()
	count := 8
	if b.full {
		count = 64
	}
	data := noise(largeSize)
	for i := range count {
		if _, err := client.Put(b.ctx, "large", fmt.Sprintf("moves%d", i), bytes.NewReader(data), api.PutOptions{}); err != nil {
			return err
		}
	}
	n, err := c.Add(b.ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := n.Start(b.ctx); err != nil {
		return err
	}
	if err := c.Balanced(b.ctx, c.Nodes[1], []string{"n1", "n2", "n3", "n4"}, settleTime); err != nil {
		return err
	}
	took := time.Since(start)
	bytes, err := n.ChunkBytes()
	if err != nil {
		return err
	}
	b.row("a fourth node gets its share", fmt.Sprintf("%.0f MB in %v", float64(bytes)/1e6, took.Round(100*time.Millisecond)), "", "", fmt.Sprintf("%.1f MB/s", float64(bytes)/1e6/took.Seconds()), "")
	return nil
}
