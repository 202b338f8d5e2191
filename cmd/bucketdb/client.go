package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// defaultEndpoint is where "bucketdb server" listens.
const defaultEndpoint = "http://127.0.0.1:9080"

// endpointFlag gives a command the flag that names the nodes.
func (a *app) endpointFlag(c *cobra.Command) {
	c.Flags().StringSliceVar(&a.endpoints, "endpoint", []string{defaultEndpoint}, "`URL` of a node; several, separated by commas, to fail over")
}

// client speaks to the nodes that --endpoint names.
func (a *app) client(o api.ClientOptions) (*api.Client, error) {
	logger, err := a.logger(a.io.err)
	if err != nil {
		return nil, err
	}
	o.Logger = logger
	o.UserAgent = "bucketdb/" + buildVersion()
	return api.NewClient(a.endpoints, o)
}

// listing walks all keys under a prefix, a page at a time. With a delimiter,
// common prefixes come as objects whose ETag is "".
func listing(ctx context.Context, c *api.Client, at location, delimiter string) iter.Seq2[api.Object, error] {
	return func(yield func(api.Object, error) bool) {
		o := api.ListOptions{Prefix: at.key, Delimiter: delimiter}
		for {
			page, err := c.List(ctx, at.bucket, o)
			if err != nil {
				yield(api.Object{}, err)
				return
			}
			for obj := range merge(page) {
				if !yield(obj, nil) {
					return
				}
			}
			if o.Cursor = page.Cursor; o.Cursor == "" {
				return
			}
		}
	}
}

// merge puts a page's prefixes among its objects, in order.
func merge(page api.ObjectList) iter.Seq[api.Object] {
	return func(yield func(api.Object) bool) {
		prefixes := page.Prefixes
		for _, obj := range page.Objects {
			for len(prefixes) > 0 && prefixes[0] < obj.Key {
				if !yield(api.Object{Key: prefixes[0]}) {
					return
				}
				prefixes = prefixes[1:]
			}
			if !yield(obj) {
				return
			}
		}
		for _, p := range prefixes {
			if !yield(api.Object{Key: p}) {
				return
			}
		}
	}
}

// printJSON writes one value as one line.
func (a *app) printJSON(v any) error { return json.NewEncoder(a.io.out).Encode(v) }

// healthCommand asks whether the nodes serve.
func (a *app) healthCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the nodes whether they are ready to serve",
		Long: "Ask the nodes named by --endpoint whether they are ready to serve.\n" +
			"The exit code is 0 when all are: a health check for scripts and containers.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client(api.ClientOptions{AnswerTimeout: 5 * time.Second})
			if err != nil {
				return err
			}
			for i, e := range a.endpoints {
				if err := untilReady(c.Context(), client, i, wait); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(a.io.out, "%s is ready\n", e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	a.endpointFlag(c)
	c.Flags().DurationVar(&wait, "wait", 0, "wait up to this `TIME` (10s, 1m) for them")
	return c
}

// untilReady asks an endpoint until it is ready or the time is over.
func untilReady(ctx context.Context, client *api.Client, endpoint int, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := client.Health(ctx, endpoint)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

<<<<<<< HEAD
=======
// clusterCommand shows the cluster.
func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Look at the cluster and check it"}
	var asJSON bool
	status := &cobra.Command{
		Use:   "status",
		Short: "Show the node that answers, its capacity and its partitions",
		Args:  asUsage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client(api.ClientOptions{})
			if err != nil {
				return err
			}
			s, err := client.Cluster(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(s)
			}
			return a.printStatus(s)
		},
	}
	a.endpointFlag(status)
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(status, a.checkCommand(), a.recoverCommand())
	return c
}

func (a *app) printStatus(s api.Cluster) error {
	led := 0
	for _, p := range s.Partitions {
		if p.Leader != "" {
			led++
		}
	}
	w := tabwriter.NewWriter(a.io.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "cluster\t%s, map epoch %d\n", s.Cluster, s.Epoch)
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "member\t%s, %s\n", n.ID, n.State)
	}
	fmt.Fprintf(w, "node\t%s\n", s.Node)
	fmt.Fprintf(w, "version\t%s\n", s.Version)
	fmt.Fprintf(w, "started\t%s\n", s.Started.Local().Format(time.DateTime))
	fmt.Fprintf(w, "ready\t%t\n", s.Ready)
	fmt.Fprintf(w, "disk\t%s free of %s\n", bytesText(s.Usage.FreeBytes), bytesText(s.Usage.TotalBytes))
	fmt.Fprintf(w, "partitions\t%d, %d with a leader\n", len(s.Partitions), led)
	return w.Flush()
}

>>>>>>> 348d5a06b000fa2d4b6d0c6ef3f130dcd15037e2
// bytesText is a size as people read it.
func bytesText(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, exp := float64(n)/unit, 0
	for f >= unit && exp < 5 {
		f, exp = f/unit, exp+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[exp])
}
