package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb"
	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// limitMemory tells Go's collector from where on to work harder: room for bodies in
// flight and for the rest (the table is in replication/DESIGN.md). Without it the heap
// would double before garbage goes, what a compaction needed included. It is soft: who
// needs more gets it, slowly. GOMEMLIMIT takes its place.
func limitMemory(env lookupEnv, cfg *bucketdb.Config) {
	if _, set := env("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(288<<20 + max(replication.DefaultBufferMemory, 2*cfg.ChunkSize))
	}
}

// serverFlags are the settings of a node.
type serverFlags struct {
	id, api, http, metadata, compression string
	advertise, secret, secretFile        string
	storage, join, hosts                 []string
	rf                                   int
	peer                                 bool // the port for other nodes is wanted
	bootstrap, allowAnonymous            bool
	partitions                           int
	chunkSize, maxObject, reserve        size
	grace                                time.Duration
	out                                  io.Writer
}

func (a *app) serverCommand() *cobra.Command {
	s := serverFlags{chunkSize: bucketdb.DefaultChunkSize, maxObject: bucketdb.DefaultMaxObjectSize, reserve: bucketdb.DefaultMetadataReserve}
	c := &cobra.Command{
		Use:   "server",
		Short: "Start a node (the default command)",
		Long: `Start a node and serve its API until SIGTERM or Ctrl-C: requests in flight finish, and
a second signal ends it at once. What was acknowledged is on disk either way.

  bucketdb -bootstrap=true -id n1
  bucketdb -id n2 -api 127.0.0.1:9081 -http 127.0.0.1:8081 -join 127.0.0.1:8080 -metadata ./n2/metadata -storage ./n2/chunks
  bucketdb server --api 127.0.0.1:9080 --metadata /var/lib/bucketdb/meta --storage /disk1,/disk2`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			logger, err := a.logger(a.io.err)
			if err != nil {
				return err
			}
			s.peer = s.bootstrap || len(s.join) > 0 || c.Flags().Changed("http")
			s.secret, _ = a.env(envPrefix + "CLUSTER_SECRET")
			cfg, err := s.config(logger)
			if err != nil {
				return err
			}
			limitMemory(a.env, cfg)
			s.out = a.io.out
			return s.serve(c.Context(), cfg, logger)
		},
	}
	f := c.Flags()
	f.StringVar(&s.id, "id", bucketdb.DefaultNodeID, "`NAME` of this node, unique in its cluster")
	f.StringVar(&s.api, "api", "127.0.0.1:9080", "listen for clients on this `ADDRESS`")
	f.StringVar(&s.http, "http", "127.0.0.1:8080", "listen for other nodes on this `ADDRESS`; opened with -bootstrap, -join, or when it is given")
	f.StringVar(&s.advertise, "advertise", "", "`HOST` or HOST:PORT where other nodes reach this one, when -http listens on all addresses")
	f.StringSliceVar(&s.join, "join", nil, "`ADDRESS` of a node whose cluster to join; several, separated by commas. Safe to repeat")
	f.BoolVar(&s.bootstrap, "bootstrap", false, "start a new cluster; a node that joins none does that anyway")
	f.StringVar(&s.secretFile, "cluster-secret-file", "", "`FILE` with the cluster's secret (the join token); or set BUCKETDB_CLUSTER_SECRET")
	f.IntVar(&s.rf, "rf", 3, "`NUMBER` of nodes that keep each partition, in a cluster that this node starts")
	f.StringSliceVar(&s.storage, "storage", []string{bucketdb.DefaultStoragePath}, "`DIR` of the data; several, separated by commas, for several disks")
	f.StringVar(&s.metadata, "metadata", bucketdb.DefaultMetadataPath, "`DIR` of names, attributes and the log")
	f.Var(&s.reserve, "metadata-reserve", "take nothing new while less than this is free on the disk of -metadata; 0: fill it up, which can end the process")
	f.IntVar(&s.partitions, "partitions", bucketdb.DefaultPartitions, "`NUMBER` of Raft groups; fixed once the store exists")
	f.Var(&s.chunkSize, "chunk-size", "cut objects at this size")
	f.Var(&s.maxObject, "max-object-size", "largest body of one request")
	f.StringVar(&s.compression, "compression", bucketdb.DefaultCompression, "`KIND`: none, snappy or zstd")
	f.BoolVar(&s.allowAnonymous, "allow-anonymous", false, "serve everybody who can reach an address off loopback")
	f.StringSliceVar(&s.hosts, "allow-host", nil, "host `NAME` by which clients may ask for this node, besides IP addresses, localhost and its own -api and -advertise; several, separated by commas; '*' for any")
	f.DurationVar(&s.grace, "shutdown-timeout", 30*time.Second, "`TIME` that requests have to finish at the end")
	return c
}

// config is the library's configuration that the flags describe.
func (s *serverFlags) config(logger *slog.Logger) (*bucketdb.Config, error) {
	if s.bootstrap && len(s.join) > 0 {
		return nil, usagef("bucketdb server", "-bootstrap starts a new cluster and -join joins one: give one of them")
	}
	if len(s.storage) == 0 {
		return nil, usagef("bucketdb server", "-storage is empty; give at least one directory")
	}
	cfg := &bucketdb.Config{
		ChunkSize: int64(s.chunkSize), MaxObjectSize: int64(s.maxObject), CompressionType: s.compression,
		StoragePath: s.storage[0], ExtraStoragePaths: s.storage[1:], MetadataPath: s.metadata, MetadataReserve: int64(s.reserve), Partitions: s.partitions,
		Cluster: bucketdb.ClusterConfig{NodeID: s.id, Bootstrap: s.bootstrap, Advertise: s.advertise, Join: s.join,
			Secret: s.secret, SecretFile: s.secretFile, ReplicationFactor: s.rf}, Logger: logger,
	}
	if s.secretFile != "" {
		cfg.Cluster.Secret = "" // the flag wins over the environment
	}
	if s.peer {
		cfg.Cluster.HTTPAddr = s.http
	}
	if s.reserve == 0 {
		cfg.MetadataReserve = -1 // none; 0 is the default there
	}
	if err := cfg.Validate(); err != nil {
		return nil, &usageError{command: "bucketdb server", err: err}
	}
	return cfg, nil
}

// serve runs the node until ctx ends. The listener comes first: a port that is
// taken should not cost a start of the store, and who asks a node that waits for
// others is told what it waits for.
func (s *serverFlags) serve(ctx context.Context, cfg *bucketdb.Config, logger *slog.Logger) error {
	if err := server.CheckListen(s.api, s.allowAnonymous); err != nil {
		return err
	}
	ln, err := listen(ctx, s.api)
	if err != nil {
		return err
	}
	defer ln.Close()
	start := time.Now()
	cfg.Cluster.APIAddr = ln.Addr().String()
	var waiting atomic.Pointer[string]
	cfg.Cluster.Waiting = func(what string) { waiting.Store(&what) }
	srv, err := server.New(nil, server.Options{Logger: logger, AllowAnonymous: s.allowAnonymous, MaxObjectSize: cfg.MaxObjectSize, AllowHosts: append(s.hosts, s.api, s.advertise),
		Waiting: func() string { return *cmp.Or(waiting.Load(), new(string)) }})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	db, err := bucketdb.Open(ctx, cfg)
	if err != nil {
		return errors.Join(openAdvice(err, cfg), s.stop(srv, logger))
	}
	srv.Attach(db.Node())
	switch token := db.JoinToken(); {
	case token != "" && s.secretFile != "": // what a service prints ends up in a log
		fmt.Fprintf(s.out, "The cluster's secret, which other nodes need to join (--cluster-secret-file), is in %s.\n", s.secretFile)
	case token != "":
		fmt.Fprintf(s.out, "The cluster's secret, which other nodes need to join (--cluster-secret-file). It is shown this once and kept in %s:\n%s\n",
			filepath.Join(cfg.MetadataPath, "cluster.secret"), token)
	}
	logger.Info("ready", "api", "http://"+ln.Addr().String(), "node", s.id, "metadata", cfg.MetadataPath, "storage", s.storage,
		"version", buildVersion(), "took", time.Since(start).Round(time.Millisecond))
	select {
	case err = <-served: // it never ends by itself but by an error
	case <-ctx.Done():
		logger.Info("stopping: requests in flight may finish", "timeout", s.grace)
		err = s.stop(srv, logger)
	}
	return errors.Join(err, db.Close())
}

// stop lets the requests in flight finish.
func (s *serverFlags) stop(srv *server.Server, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		logger.Warn("requests in flight were cut off", "after", s.grace)
		return nil
	}
	return err
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, advise(err, "Another program listens on %s: stop it, or choose another address with -api.", address)
	case errors.Is(err, os.ErrPermission):
		return nil, advise(err, "Ports below 1024 need privileges: choose another address with -api.")
	}
	return ln, err
}

// openAdvice says what to do about a store that does not open.
func openAdvice(err error, cfg *bucketdb.Config) error {
	switch {
	case object.IsKind(err, object.KindBusy):
		return advise(err, "Another process has this store open: stop it, or give this one other directories with -metadata and -storage.")
	case object.IsKind(err, object.KindVersion):
		return advise(err, "Run the version of bucketdb that wrote it, or a newer one. No data was changed.")
	case object.IsKind(err, object.KindPermission):
		return advise(err, "Run as the user who owns %s, or change its owner.", cfg.MetadataPath)
	}
	return fmt.Errorf("the store does not open: %w", err)
}
