package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// copier is one run of cp.
type copier struct {
	app       *app
	client    *api.Client
	progress  *progress
	jobs      *errgroup.Group
	recursive bool
	preserve  bool
	verbose   bool
}

func (a *app) cpCommand() *cobra.Command {
	var cp copier
	var quiet bool
	var jobs int
	c := &cobra.Command{
		Use:   "cp SOURCE... TARGET",
		Short: "Copy files into the store, out of it, or within it",
		Long: `Copy files into the store, out of it, or within it. Places in the store are written
bd://BUCKET/KEY; "-" is standard input or output. A target that ends in / (or is a
bucket, or an existing local directory) is a directory into which the source goes.

  bucketdb cp video.mp4 bd://assets/             bd://assets/video.mp4
  bucketdb cp -r site bd://assets/www            bd://assets/www/index.html ...
  bucketdb cp -r site bd://assets/www/           bd://assets/www/site/index.html ...
  bucketdb cp bd://assets/video.mp4 .            ./video.mp4
  bucketdb cp bd://assets/a bd://backup/a        no data moves: the copy shares it`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client(api.ClientOptions{})
			if err != nil {
				return err
			}
			defer client.Close()
			if jobs < 1 {
				return usagef("bucketdb cp", "--jobs is %d; it must be at least 1", jobs)
			}
			cp.app, cp.client = a, client
			cp.progress = newProgress(a.io.err, "cp", quiet || cp.verbose)
			err = cp.run(c.Context(), args[:len(args)-1], args[len(args)-1], jobs)
			cp.progress.done(err != nil)
			return err
		},
	}
	f := c.Flags()
	f.BoolVarP(&cp.recursive, "recursive", "r", false, "copy directories with all that is in them")
	f.BoolVarP(&cp.preserve, "preserve", "p", false, "keep modes and modification times")
	f.BoolVarP(&cp.verbose, "verbose", "v", false, "name each file")
	f.BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	f.IntVarP(&jobs, "jobs", "j", defaultJobs, "transfers at a time")
	return c
}

// run copies all sources to the target.
func (cp *copier) run(ctx context.Context, sources []string, target string, jobs int) error {
	if len(sources) > 1 && !cp.isDirTarget(target) {
		return usagef("bucketdb cp", "%q is no directory, and there are %d sources; end it in /", target, len(sources))
	}
	var gctx context.Context
	cp.jobs, gctx = errgroup.WithContext(ctx)
	cp.jobs.SetLimit(jobs)
	var err error
	for _, source := range sources {
		if err = cp.one(gctx, source, target); err != nil {
			break
		}
	}
	// An error in a transfer ends the walk too, by way of gctx; it is the one to tell.
	if failed := cp.jobs.Wait(); failed != nil {
		return failed
	}
	return err
}

func (cp *copier) isDirTarget(target string) bool {
	if isRemote(target) {
		l, err := parseRemote("bucketdb cp", target)
		return err == nil && l.isDir()
	}
	info, err := os.Stat(target)
	return strings.HasSuffix(target, "/") || err == nil && info.IsDir()
}

// one copies one source argument.
func (cp *copier) one(ctx context.Context, source, target string) error {
	switch {
	case isRemote(source) && isRemote(target):
		return cp.within(ctx, source, target)
	case isRemote(source):
		return cp.out(ctx, source, target)
	case isRemote(target):
		return cp.in(ctx, source, target)
	}
	return usagef("bucketdb cp", "neither %q nor %q is in the store; write %sBUCKET/KEY for the one that is", source, target, scheme)
}

// in copies a local file, directory or standard input into the store.
func (cp *copier) in(ctx context.Context, source, target string) error {
	to, err := parseRemote("bucketdb cp", target)
	if err != nil {
		return err
	}
	if source == "-" {
		if to.isDir() {
			return usagef("bucketdb cp", "%q needs a key: standard input has no name", target)
		}
		_, err := cp.client.Put(ctx, to.bucket, to.key, cp.app.io.in, api.PutOptions{})
		return err
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return cp.start(func() error { return cp.upload(ctx, source, to.into(filepath.Base(source))) }, source)
	}
	if !cp.recursive {
		return usagef("bucketdb cp", "%s is a directory; copy it with -r", source)
	}
	abs, err := filepath.Abs(source)
	if err != nil {
		return err
	}
	if to.key != "" {
		to = to.into(filepath.Base(abs))
	}
	return cp.walk(ctx, source, to)
}

// walk uploads the regular files of a tree. What is no regular file is an error
// rather than left out in silence.
func (cp *copier) walk(ctx context.Context, root string, to location) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !d.Type().IsRegular() {
			return advise(fmt.Errorf("%s is no regular file (%s)", path, d.Type()), "cp moves objects; copy trees with links and devices through the mount, with cp -a.")
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return cp.start(func() error { return cp.upload(ctx, path, to.under(filepath.ToSlash(rel))) }, path)
	})
}

// out copies an object or, with -r, all below a directory to local files.
func (cp *copier) out(ctx context.Context, source, target string) error {
	from, err := parseRemote("bucketdb cp", source)
	if err != nil {
		return err
	}
	if target == "-" {
		return fetch(ctx, cp.client, from, cp.app.io.out)
	}
	if !from.isDir() && !cp.recursive {
		if cp.isDirTarget(target) {
			target = filepath.Join(target, filepath.FromSlash(from.base()))
		}
		return cp.start(func() error { return cp.download(ctx, from, target, -1) }, from.String())
	}
	if !cp.recursive {
		return usagef("bucketdb cp", "%s is a directory; copy it with -r", source)
	}
	if cp.isDirTarget(target) && from.key != "" {
		target = filepath.Join(target, filepath.FromSlash(from.base()))
	}
	return cp.below(ctx, from, func(obj api.Object, rel string) error {
		local, err := filepath.Localize(rel)
		if err != nil {
			return advise(fmt.Errorf("the key %q is no path for a file here", obj.Key), "Copy this object by itself, to a name of your choice.")
		}
		at := location{from.bucket, string(obj.Key)}
		return cp.start(func() error { return cp.download(ctx, at, filepath.Join(target, local), obj.Size) }, at.String())
	})
}

// within copies inside the store: the server shares the data and moves none.
func (cp *copier) within(ctx context.Context, source, target string) error {
	from, err := parseRemote("bucketdb cp", source)
	if err != nil {
		return err
	}
	to, err := parseRemote("bucketdb cp", target)
	if err != nil {
		return err
	}
	copyTo := func(from, to location) error {
		return cp.start(func() error {
			_, err := cp.client.Copy(ctx, from.bucket, from.key, api.Target{Bucket: api.Name(to.bucket), Key: api.Name(to.key)}, api.Conditions{})
			return err
		}, from.String())
	}
	if !cp.recursive {
		if from.isDir() {
			return usagef("bucketdb cp", "%s is a directory; copy it with -r", source)
		}
		return copyTo(from, to.into(from.base()))
	}
	if to.isDir() && from.key != "" {
		to = to.into(from.base())
	}
	return cp.below(ctx, from, func(obj api.Object, rel string) error {
		return copyTo(location{from.bucket, string(obj.Key)}, to.under(rel))
	})
}

// below calls do for each object below a directory, with its key relative to it.
func (cp *copier) below(ctx context.Context, dir location, do func(obj api.Object, rel string) error) error {
	dir = dir.under("")
	for obj, err := range listing(ctx, cp.client, dir, "") {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(string(obj.Key), dir.key)
		if rel == "" || strings.HasSuffix(rel, "/") {
			continue // a directory's own entry: it is made with what is in it
		}
		if err := do(obj, rel); err != nil {
			return err
		}
	}
	return nil
}

// start runs a transfer when there is a place for it. Its error ends the others.
func (cp *copier) start(transfer func() error, name string) error {
	if cp.verbose {
		fmt.Fprintln(cp.app.io.err, name)
	}
	cp.jobs.Go(transfer)
	return nil
}
