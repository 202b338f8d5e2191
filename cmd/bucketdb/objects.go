package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// defaultJobs is how many requests a command has in flight.
const defaultJobs = 8

// objectCommands are the verbs on buckets and objects.
func (a *app) objectCommands() []*cobra.Command {
	commands := []*cobra.Command{a.lsCommand(), a.cpCommand(), a.mvCommand(), a.rmCommand(), a.mbCommand(), a.rbCommand(), a.storageCommand(), a.statCommand(), a.catCommand()}
	for _, c := range commands {
		a.endpointFlag(c)
	}
	return commands
}

// withClient runs a command that needs a client.
func (a *app) withClient(run func(ctx context.Context, client *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := a.client(api.ClientOptions{})
		if err != nil {
			return err
		}
		defer client.Close()
		return run(c.Context(), client, args)
	}
}

func (a *app) lsCommand() *cobra.Command {
	var recursive, asJSON bool
	c := &cobra.Command{
		Use:   "ls [BUCKET[/PREFIX]]",
		Short: "List buckets, or the objects of one",
		Args:  cobra.MaximumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			if len(args) == 0 {
				return a.listBuckets(ctx, client, asJSON)
			}
			at, err := parseRemote("bucketdb ls", args[0])
			if err != nil {
				return err
			}
			delimiter := "/"
			if recursive {
				delimiter = ""
			}
			return a.listObjects(ctx, client, at, delimiter, asJSON)
		}),
	}
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "list all levels")
	c.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each")
	return c
}

func (a *app) listBuckets(ctx context.Context, client *api.Client, asJSON bool) error {
	buckets, err := client.Buckets(ctx)
	if err != nil {
		return err
	}
	for _, b := range buckets {
		if asJSON {
			err = a.printJSON(b)
		} else {
			_, err = fmt.Fprintf(a.io.out, "%s  %s/\n", b.Created.Local().Format(time.DateTime), b.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) listObjects(ctx context.Context, client *api.Client, at location, delimiter string, asJSON bool) error {
	for obj, err := range listing(ctx, client, at, delimiter) {
		if err != nil {
			return err
		}
		switch {
		case asJSON:
			err = a.printJSON(obj)
		case obj.ETag == "":
			_, err = fmt.Fprintf(a.io.out, "%19s  %14s  %s\n", "", "DIR", obj.Key)
		default:
			_, err = fmt.Fprintf(a.io.out, "%s  %14d  %s\n", obj.Modified.Local().Format(time.DateTime), obj.Size, obj.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) mvCommand() *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "mv BUCKET/KEY BUCKET/KEY",
		Short: "Rename an object or (with a trailing /) a directory",
		Long: "Rename an object, or a directory whose name is written with a trailing /. It is one\n" +
			"step whatever the size. A target that ends in / is a directory to move into.",
		Args: cobra.ExactArgs(2),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			from, err := parseObject("bucketdb mv", args[0])
			if err != nil {
				return err
			}
			to, err := parseRemote("bucketdb mv", args[1])
			if err != nil {
				return err
			}
			to = to.into(from.base())
			if strings.HasSuffix(from.key, "/") && !strings.HasSuffix(to.key, "/") {
				to.key += "/"
			}
			return client.RenameObject(ctx, from.bucket, from.key, api.Target{Bucket: api.Name(to.bucket), Key: api.Name(to.key), NoReplace: keep})
		}),
	}
	c.Flags().BoolVarP(&keep, "no-clobber", "n", false, "refuse to replace an object")
	return c
}

func (a *app) rmCommand() *cobra.Command {
	var recursive, force bool
	c := &cobra.Command{
		Use:   "rm BUCKET/KEY...",
		Short: "Remove objects, or with -r everything below a directory",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			for _, arg := range args {
				at, err := parseObject("bucketdb rm", arg)
				if err != nil {
					return err
				}
				if recursive {
					err = removeBelow(ctx, client, location{at.bucket, strings.TrimSuffix(at.key, "/") + "/"})
				}
				if err == nil && (!recursive || !at.isDir()) {
					err = client.Delete(ctx, at.bucket, at.key, api.Conditions{})
					if object.IsKind(err, object.KindNotFound) && (force || recursive) {
						err = nil
					}
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	}
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "remove everything below, too")
	c.Flags().BoolVarP(&force, "force", "f", false, "a missing object is no error")
	return c
}

// removeBelow deletes every key that starts with at.key. Directories follow when
// what is in them is gone, the deepest first; one that vanished by itself is fine.
func removeBelow(ctx context.Context, client *api.Client, at location) error {
	gone := func(ctx context.Context, key string) error {
		err := client.Delete(ctx, at.bucket, key, api.Conditions{})
		if object.IsKind(err, object.KindNotFound) {
			return nil
		}
		return err
	}
	var dirs []string
	var listed error
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(defaultJobs)
	for obj, err := range listing(gctx, client, at, "") {
		if err != nil {
			listed = err
			break
		}
		key := string(obj.Key)
		if strings.HasSuffix(key, "/") {
			dirs = append(dirs, key)
			continue
		}
		g.Go(func() error { return gone(gctx, key) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if listed != nil {
		return listed
	}
	slices.SortFunc(dirs, func(x, y string) int { return strings.Count(y, "/") - strings.Count(x, "/") })
	for _, d := range dirs {
		if err := gone(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) mbCommand() *cobra.Command {
	var owner, storage string
	c := &cobra.Command{
		Use:   "mb BUCKET...",
		Short: "Make buckets",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			in := api.NewBucket{Owner: owner}
			if storage != "" {
				as, err := parseStorage("bucketdb mb", storage)
				if err != nil {
					return err
				}
				in.Storage = &as
			}
			for _, arg := range args {
				in.Name = api.Name(bucketName(arg))
				if _, err := client.MakeBucket(ctx, in); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	c.Flags().StringVar(&owner, "owner", "", "whose bucket it is")
	c.Flags().StringVar(&storage, "scheme", "", "how data is kept: replicated:COPIES or rs:DATA+PARITY (default replicated:3)")
	return c
}

func (a *app) rbCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rb BUCKET...",
		Short: "Remove empty buckets, or with --force full ones",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			for _, arg := range args {
				name := bucketName(arg)
				if force {
					if err := removeBelow(ctx, client, location{bucket: name}); err != nil {
						return err
					}
				}
				if err := client.DeleteBucket(ctx, name); err != nil {
					if object.IsKind(err, object.KindNotEmpty) {
						return advise(err, "Remove its objects first, or use 'bucketdb rb --force %s' to remove them all.", name)
					}
					return err
				}
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "remove all its objects first")
	return c
}

func (a *app) statCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "stat BUCKET[/KEY]",
		Short: "Describe a bucket or an object",
		Args:  cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			at, err := parseRemote("bucketdb stat", args[0])
			if err != nil {
				return err
			}
			if at.key == "" {
				b, err := client.Bucket(ctx, at.bucket)
				if err != nil || asJSON {
					return firstError(err, func() error { return a.printJSON(b) })
				}
				return a.table(append([][2]string{{"bucket", string(b.Name)}, {"owner", b.Owner}, {"created", b.Created.Local().Format(time.RFC3339)}}, describeStorage(b)...))
			}
			obj, err := client.Head(ctx, at.bucket, at.key, api.Conditions{})
			if err != nil || asJSON {
				return firstError(err, func() error { return a.printJSON(obj) })
			}
			return a.table(describe(obj))
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func firstError(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}

func describe(obj api.Object) [][2]string {
	rows := [][2]string{
		{"bucket", string(obj.Bucket)}, {"key", string(obj.Key)},
		{"size", fmt.Sprintf("%d (%s)", obj.Size, bytesText(uint64(obj.Size)))},
		{"modified", obj.Modified.Local().Format(time.RFC3339Nano)},
		{"type", obj.ContentType}, {"etag", obj.ETag}, {"sha256", fmt.Sprintf("%x", []byte(obj.SHA256))},
	}
	for _, name := range slices.Sorted(maps.Keys(obj.Meta)) {
		rows = append(rows, [2]string{"meta " + name, obj.Meta[name]})
	}
	return rows
}

// table prints names and values; empty values are left out.
func (a *app) table(rows [][2]string) error {
	w := tabwriter.NewWriter(a.io.out, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		if r[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", r[0], r[1])
		}
	}
	return w.Flush()
}

func (a *app) catCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cat BUCKET/KEY...",
		Short: "Write objects to standard output",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			for _, arg := range args {
				at, err := parseObject("bucketdb cat", arg)
				if err != nil {
					return err
				}
				if err := fetch(ctx, client, at, a.io.out); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

// fetch streams an object into w.
func fetch(ctx context.Context, client *api.Client, at location, w io.Writer) error {
	r, err := client.Get(ctx, at.bucket, at.key, api.GetOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
