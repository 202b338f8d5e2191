package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// mountFlags are the settings of a mount.
type mountFlags struct {
	background, readOnly, allowOther bool
	cacheTTL, opTimeout              time.Duration
	memory                           size
	logFile                          string
}

func (a *app) mountCommand() *cobra.Command {
	m := mountFlags{memory: fs.DefaultMemoryBytes}
	c := &cobra.Command{
		Use:   "mount [BUCKET[/PREFIX]] DIR",
		Short: "Mount all buckets, one, or a directory of one",
		Long: `Mount all buckets as directories, or one bucket, or a directory of one, on DIR, until
Ctrl-C, SIGTERM or 'bucketdb umount DIR'. With --background it returns once the
mount can be used.

  bucketdb mount /mnt/store
  bucketdb mount assets/www /srv/www --endpoint http://n1:9080,http://n2:9080 --background`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			o, err := m.options(args)
			if err != nil {
				return err
			}
			if m.background && !isBackground(a.env) {
				return a.startBackground(c.Context(), o.Dir, m.logFile)
			}
			return a.mount(c.Context(), o)
		},
	}
	a.endpointFlag(c)
	f := c.Flags()
	f.BoolVar(&m.background, "background", false, "return once mounted, and go on in the background")
	f.StringVar(&m.logFile, "log-file", "", "`FILE` where a mount in the background logs (default: below the user's cache directory)")
	f.BoolVar(&m.readOnly, "read-only", false, "refuse all changes")
	f.BoolVar(&m.allowOther, "allow-other", false, "let other users in")
	f.DurationVar(&m.cacheTTL, "cache-ttl", fs.DefaultCacheTTL, "`TIME` for which names and attributes are believed; 0 asks each time")
	f.DurationVar(&m.opTimeout, "op-timeout", fs.DefaultOpTimeout, "`TIME` after which an operation that gets no answer fails with EIO")
	f.Var(&m.memory, "memory", "bound of unflushed writes and prefetched reads")
	return c
}

// options are those of package fs, without the backend.
func (m *mountFlags) options(args []string) (fs.Options, error) {
	o := fs.Options{ReadOnly: m.readOnly, AllowOther: m.allowOther, CacheTTL: m.cacheTTL, OpTimeout: m.opTimeout, MemoryBytes: int64(m.memory)}
	if m.cacheTTL == 0 {
		o.CacheTTL = -1 // its zero means the default
	}
	if len(args) == 2 {
		at, err := parseRemote("bucketdb mount", args[0])
		if err != nil {
			return o, err
		}
		o.Bucket, o.Prefix = at.bucket, strings.Trim(at.key, "/")
	}
	dir, err := filepath.Abs(args[len(args)-1])
	o.Dir = dir
	return o, err
}

// mount serves a mount until it is unmounted or ctx ends.
func (a *app) mount(ctx context.Context, o fs.Options) error {
	client, err := a.client(api.ClientOptions{RetryFor: o.OpTimeout})
	if err != nil {
		return err
	}
	defer client.Close()
	if o.Logger, err = a.logger(a.io.err); err != nil {
		return err
	}
	o.Backend = fs.NewBackend(client)
	mounted, err := fs.Mount(ctx, o)
	if err != nil {
		return err
	}
	if isBackground(a.env) {
		if err := a.detach(o.Dir); err != nil {
			return errors.Join(err, mounted.Unmount())
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- mounted.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return unmountWhenFree(mounted, ended, o.Logger)
	}
}

// unmountWhenFree flushes and unmounts; while a program still uses the mount it
// waits for it, since cutting it off would lose what that one has in hand.
func unmountWhenFree(mounted *fs.Server, ended <-chan error, logger *slog.Logger) error {
	for first := true; ; first = false {
		err := mounted.Unmount()
		if !object.IsKind(err, object.KindBusy) {
			return err
		}
		if first {
			logger.Warn("waiting for the programs that use the mount; a second signal does not", "error", err)
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (a *app) umountCommand() *cobra.Command {
	var lazy bool
	c := &cobra.Command{
		Use:     "umount DIR",
		Aliases: []string{"unmount"},
		Short:   "Unmount",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			flags := []string{"-u"}
			if lazy {
				flags = append(flags, "-z")
			}
			out, err := exec.CommandContext(c.Context(), "fusermount3", append(flags, "--", args[0])...).CombinedOutput()
			if errors.Is(err, exec.ErrNotFound) {
				return advise(err, "Install fuse3 (apt-get install fuse3), or use umount as root.")
			}
			if err != nil {
				text := strings.TrimPrefix(strings.TrimSpace(string(out)), "fusermount3: ")
				return advise(fmt.Errorf("unmount %s: %s", args[0], text),
					"If it is in use, close the programs that use it ('fuser -vm %s' lists them), or use --lazy.", args[0])
			}
			return nil
		},
	}
	c.Flags().BoolVar(&lazy, "lazy", false, "take the directory away now, and end the mount when its last user is gone")
	return c
}

// isBackground reports whether this process is the one that --background started.
func isBackground(env lookupEnv) bool {
	_, ok := env(readyEnv)
	return ok
}

// logFileFor is where a mount in the background logs when nothing else is said.
func logFileFor(dir string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", advise(fmt.Errorf("no place for the mount's log: %w", err), "Name one with --log-file FILE.")
	}
	name := "mount" + strings.ReplaceAll(dir, "/", "-") + ".log"
	if len(name) > 200 {
		name = name[:196] + ".log"
	}
	path := filepath.Join(cache, "bucketdb", name)
	return path, os.MkdirAll(filepath.Dir(path), 0o700)
}
