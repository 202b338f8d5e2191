package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// bucketName is the bucket that an argument names, written as a place or not.
func bucketName(arg string) string {
	return strings.TrimSuffix(strings.TrimPrefix(arg, scheme), "/")
}

// parseStorage reads how data is to be kept: replicated:3, rs:4+2.
func parseStorage(command, text string) (api.Storage, error) {
	s, err := object.ParseScheme(text)
	if err != nil {
		return api.Storage{}, usagef(command, "%v", err)
	}
	return api.StorageOf(s), nil
}

func (a *app) storageCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "storage BUCKET [replicated:COPIES|rs:DATA+PARITY]",
		Short: "Show or change how a bucket's data is kept",
		Long: "Show how a bucket's data is kept, or change it: as copies (replicated:3), or as data\n" +
			"and parity shards of Reed-Solomon (rs:4+2), each copy or shard on a node of its own.\n" +
			"What is written after a change is kept so at once; what is there is rewritten in the\n" +
			"background, and this command shows how far that is. The same setting once more has\n" +
			"everything looked at again.",
		Args: cobra.RangeArgs(1, 2),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			name := bucketName(args[0])
			b, err := api.Bucket{}, error(nil)
			if len(args) == 1 {
				b, err = client.Bucket(ctx, name)
			} else {
				var as api.Storage
				if as, err = parseStorage("bucketdb storage", args[1]); err == nil {
					b, err = client.SetStorage(ctx, name, as)
				}
			}
			if err != nil || asJSON {
				return firstError(err, func() error { return a.printJSON(b) })
			}
			return a.table(describeStorage(b))
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// describeStorage is how a bucket's data is kept, and how far it is with that.
func describeStorage(b api.Bucket) [][2]string {
	text := b.Storage.Type
	if s, err := b.Storage.Scheme(); err == nil {
		text = s.String()
	}
	rows := [][2]string{{"storage", text}}
	r := b.Rewriting
	switch {
	case r == nil:
	case r.Walked:
		rows = append(rows, [2]string{"rewriting", fmt.Sprintf("since %s, about %d files are left", r.Started.Local().Format(time.DateTime), r.Left)})
	default:
		rows = append(rows, [2]string{"rewriting", fmt.Sprintf("since %s, pass %d has seen %d names", r.Started.Local().Format(time.DateTime), r.Pass, r.Seen)})
	}
	return rows
}
