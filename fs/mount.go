// Package fs is the mount: it shows a BucketDB cluster as a filesystem through
// FUSE, over the REST client alone. DESIGN.md beside this file says what is
// cached and for how long, how writes go out, and what a crash leaves.
package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Defaults of Options.
const (
	DefaultCacheTTL       = time.Second
	DefaultOpTimeout      = 30 * time.Second
	DefaultMemoryBytes    = 256 << 20
	DefaultWritebackDelay = 5 * time.Second
	DefaultHoldRenew      = 10 * time.Second

	minMemoryBytes = 16 << 20
	maxRequest     = 1 << 20 // bytes of one FUSE read or write
)

// Options say what is mounted where. Backend and Dir are needed; the rest has
// good defaults.
type Options struct {
	// Backend is the cluster; NewBackend makes one of a client.
	Backend Backend
	// Bucket is the bucket to mount; "" mounts all of them as directories.
	Bucket string
	// Prefix is a directory of Bucket that becomes the mount's root; "" is the bucket itself.
	Prefix string
	// Dir is the mount point: an existing directory.
	Dir string

	ReadOnly   bool
	AllowOther bool  // other users than the one that mounts may enter
	UIDs, GIDs IDMap // local ↔ stored ids; empty: the same

	// CacheTTL is how long the kernel may believe names and attributes without
	// asking; negative: not at all. File content is revalidated at each open.
	CacheTTL time.Duration
	// MemoryBytes bounds unflushed writes and prefetched reads together.
	MemoryBytes int64
	// OpTimeout bounds each request to the cluster; when it passes the program
	// sees EIO.
	OpTimeout time.Duration
	// WritebackDelay is how long written bytes stay here at most while their
	// file stays open.
	WritebackDelay time.Duration
	// HoldRenew is how often open files are reported to the cluster, so that
	// they live on when their last name goes. It must be well under the
	// cluster's lease period.
	HoldRenew time.Duration

	Logger *slog.Logger
	Debug  bool // log every FUSE message at debug level
}

// complete fills in defaults and refuses what cannot work.
func (o Options) complete() (Options, error) {
	orElse := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	orElse(&o.CacheTTL, DefaultCacheTTL)
	orElse(&o.OpTimeout, DefaultOpTimeout)
	orElse(&o.WritebackDelay, DefaultWritebackDelay)
	orElse(&o.HoldRenew, DefaultHoldRenew)
	o.CacheTTL = max(o.CacheTTL, 0)
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemoryBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Backend == nil:
		return o, object.Errorf(object.KindInvalid, "no cluster to mount; give its endpoint")
	case o.Dir == "":
		return o, object.Errorf(object.KindInvalid, "no mount point given; name an existing, empty directory")
	case o.Prefix != "" && o.Bucket == "":
		return o, object.Errorf(object.KindInvalid, "prefix %q without a bucket; write BUCKET/%s", o.Prefix, o.Prefix)
	case o.MemoryBytes < minMemoryBytes:
		return o, object.Errorf(object.KindInvalid, "%d bytes of memory are too few; give at least %d", o.MemoryBytes, minMemoryBytes)
	case o.OpTimeout < 0 || o.WritebackDelay < 0 || o.HoldRenew < 0:
		return o, object.Errorf(object.KindInvalid, "a timeout is negative; leave it out for the default")
	}
	return o, errors.Join(o.UIDs.validate("uid"), o.GIDs.validate("gid"))
}

// Server is one mount. It is safe for concurrent use.
type Server struct {
	fs   *filesystem
	fuse *fuse.Server
	dir  string
	done chan struct{} // closed when the mount is gone and everything is flushed
	err  error         // of the last flush; read it after done
}

// Mount mounts and returns when programs can use it. ctx bounds the mounting
// only; Unmount, or umount(8), ends it.
func Mount(ctx context.Context, o Options) (*Server, error) {
	o, err := o.complete()
	if err != nil {
		return nil, object.WithOp(err, "mount", o.Bucket, o.Prefix)
	}
	root, err := findRoot(ctx, o)
	if err != nil {
		return nil, object.WithOp(err, "mount", o.Bucket, o.Prefix)
	}
	if err := checkMountPoint(o.Dir); err != nil {
		return nil, object.WithOp(err, "mount", o.Bucket, o.Prefix)
	}
	raw := newFilesystem(o, root)
	srv, err := fuse.NewServer(raw, o.Dir, mountOptions(o))
	if err != nil {
		raw.stop()
		return nil, &object.Error{Op: "mount", Bucket: o.Bucket, Key: o.Prefix,
			Err: fmt.Errorf("cannot mount on %s (is /dev/fuse there, and are you root or is fuse3 installed?): %w", o.Dir, err)}
	}
	kernel := srv.KernelSettings()
	raw.mapsDirect = kernel.Flags64()&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0
	s := &Server{fs: raw, fuse: srv, dir: o.Dir, done: make(chan struct{})}
	go s.serve()
	if err := srv.WaitMount(); err != nil {
		return nil, errors.Join(object.WithOp(err, "mount", o.Bucket, o.Prefix), s.Unmount())
	}
	raw.raiseReadAhead(o.Dir)
	raw.start()
	o.Logger.Info("mounted", "dir", o.Dir, "bucket", o.Bucket, "prefix", o.Prefix)
	return s, nil
}

func (s *Server) serve() {
	s.fuse.Serve()
	s.err = s.fs.flushAll(context.Background())
	s.fs.stop()
	close(s.done)
}

// Wait returns when the mount is gone, with the error of what could not be
// flushed then.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// Sync makes everything written so far durable.
func (s *Server) Sync(ctx context.Context) error { return s.fs.flushAll(ctx) }

// Unmount flushes everything, unmounts, and reports what could not be flushed.
// Where a program still uses the mount it fails with KindBusy, and the mount
// goes on.
func (s *Server) Unmount() error {
	select {
	case <-s.done:
		return s.err
	default:
	}
	ferr := s.fs.flushAll(context.Background())
	if err := s.fuse.Unmount(); err != nil {
		busy := object.Errorf(object.KindBusy, "%s is in use; close the programs that use it (fuser -vm %s lists them) and try again: %w", s.dir, s.dir, err)
		return errors.Join(object.WithOp(busy, "unmount", "", ""), ferr)
	}
	return errors.Join(ferr, s.Wait())
}

// findRoot walks to the directory that is mounted.
func findRoot(ctx context.Context, o Options) (object.InodeID, error) {
	ctx, cancel := context.WithTimeout(ctx, o.OpTimeout)
	defer cancel()
	dir := object.RootInode
	if o.Bucket == "" {
		_, err := o.Backend.GetAttr(ctx, dir) // so that an unreachable cluster is an error now
		return dir, err
	}
	for i, name := range append([]string{o.Bucket}, splitPath(o.Prefix)...) {
		n, err := o.Backend.Lookup(ctx, dir, name)
		switch {
		case err != nil && (object.IsKind(err, object.KindNotFound) || object.IsKind(err, object.KindBucketNotFound)) && i == 0:
			return 0, object.Errorf(object.KindBucketNotFound, "there is no bucket %q; make it with: bucketdb mb %s", name, name)
		case object.IsKind(err, object.KindNotFound):
			return 0, object.Errorf(object.KindNotFound, "there is no directory %q in bucket %q; mount the bucket and make it", o.Prefix, o.Bucket)
		case err != nil:
			return 0, err
		case !n.IsDir():
			return 0, object.Errorf(object.KindNotDirectory, "%q is not a directory", name)
		}
		dir = n.ID
	}
	return dir, nil
}

func splitPath(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

func checkMountPoint(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, syscall.ENOTCONN):
		return object.Errorf(object.KindBusy, "%s holds a mount whose process died; remove it with: umount -l %s", dir, dir)
	case err != nil:
		return err
	case !info.IsDir():
		return object.Errorf(object.KindNotDirectory, "mount point %s is not a directory", dir)
	}
	return nil
}

func mountOptions(o Options) *fuse.MountOptions {
	m := &fuse.MountOptions{
		AllowOther:           o.AllowOther,
		Options:              []string{"default_permissions"},
		FsName:               fsName(o),
		Name:                 "bucketdb",
		MaxWrite:             maxRequest,
		MaxReadAhead:         maxRequest,
		MaxBackground:        64,
		DirectMount:          os.Geteuid() == 0,
		EnableSymlinkCaching: true,
		EnableAcl:            true,
		Debug:                o.Debug,
		Logger:               slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DIRECT_IO_ALLOW_MMAP |
			fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT,
	}
	m.PanicHandler = func(p any) fuse.Status {
		o.Logger.Error("panic in a FUSE handler", "panic", p, "stack", string(debug.Stack()))
		return fuse.EIO
	}
	switch {
	case o.ReadOnly && m.DirectMount:
		// Strict: the fallback, fusermount, would not see the flag.
		m.DirectMountStrict = true
		m.DirectMountFlags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_RDONLY
	case o.ReadOnly:
		m.Options = append(m.Options, "ro")
	}
	return m
}

// fsName is the first column of df: BUCKET/PREFIX, without what mount tables
// cannot hold.
func fsName(o Options) string {
	name := "bucketdb"
	if o.Bucket != "" {
		name += ":" + o.Bucket
	}
	if o.Prefix != "" {
		name += "/" + strings.Trim(o.Prefix, "/")
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == ',' || r == '\\' || r == 0x7f {
			return '_'
		}
		return r
	}, name)
}
