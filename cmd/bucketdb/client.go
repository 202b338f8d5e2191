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
