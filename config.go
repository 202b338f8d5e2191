package bucketdb

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The defaults.
const (
	DefaultNodeID        = "n1"
	DefaultChunkSize     = 4 << 20
	DefaultStoragePath   = "./chunks"
	DefaultMetadataPath  = "./metadata"
	DefaultMaxObjectSize = 5 << 30
	DefaultCompression   = "snappy"
	DefaultPartitions    = 64
	// DefaultMetadataReserve is free space, in bytes; see Config.MetadataReserve.
	DefaultMetadataReserve = replication.DefaultMetadataReserve
)

// Limits of the settings.
const (
	MinChunkSize  = 64 << 10 // one frame
	MaxChunkSize  = 64 << 20
	MaxPartitions = object.MaxPartitions - 1 // partition 0 is the control group
)

// Config says where and how a BucketDB keeps its data. Sizes are bytes.
type Config struct {
	// ChunkSize is the size at which objects are cut.
	ChunkSize int64
	// StoragePath is the directory of the chunks.
	StoragePath string
	// ExtraStoragePaths are further ones, usually one a disk.
	ExtraStoragePaths []string
	// MetadataPath is the directory of names, attributes and the log.
	MetadataPath string
	// MetadataReserve is the free space on the disk of MetadataPath below which
	// nothing new is taken (KindNoSpace); reading and deleting go on. 0 is
	// DefaultMetadataReserve, negative is none: then a disk that fills up ends
	// the process.
	MetadataReserve int64
	// MaxObjectSize is the largest body of one write. Multipart uploads and
	// files written in pieces may grow beyond it.
	MaxObjectSize int64
	// CompressionType is "none", "snappy" or "zstd". Chunks that do not shrink
	// are stored as they are.
	CompressionType string
	// Partitions is the number of Raft groups; fixed once the store exists.
	Partitions int
	// Cluster makes the node part of a cluster; its zero value is a node alone.
	Cluster ClusterConfig
	// Logger receives what a person should know; nil: nothing is logged.
	Logger *slog.Logger
}

// ClusterConfig is a node's part in a cluster. Without an HTTPAddr the node is alone
// and opens no port.
type ClusterConfig struct {
	NodeID    string // this node's name, unique in the cluster; "" is DefaultNodeID
	APIAddr   string // where clients reach this node, host:port, as the cluster tells them; "": nowhere
	Bootstrap bool   // start a new cluster of which this is the first node; a node that joins none always does
	// HTTPAddr is where this node listens for other nodes, host:port. Off loopback
	// the cluster has a secret, and what nodes say is encrypted.
	HTTPAddr string
	// Advertise is where others reach this node, a host or host:port. "": at HTTPAddr or,
	// where that is a wildcard, at this machine's only address.
	Advertise string
	// Join are nodes (their HTTPAddr) of a cluster that a new store joins. One that belongs to a
	// cluster already finds it again without.
	Join []string
	// Secret of the cluster, as BucketDB.JoinToken gives it at the first node; or
	// SecretFile that holds it, one a line while they are changed, the current one first; it
	// is followed while the node runs. Both "": what the store keeps. A node that founds
	// a cluster off loopback makes one.
	Secret, SecretFile string
	// ReplicationFactor is how many nodes keep each partition, as a setting of the cluster
	// that this node founds. 0: 3.
	ReplicationFactor int
	// Waiting is told what Open waits for, in words for people, whenever that changes: other nodes,
	// a majority. It must not block, and may be called from several goroutines. nil: nobody asks.
	Waiting func(what string)
}

// DefaultConfig is a node alone that keeps its data below the working directory.
func DefaultConfig() *Config {
	return &Config{
		ChunkSize:       DefaultChunkSize,
		StoragePath:     DefaultStoragePath,
		MetadataPath:    DefaultMetadataPath,
		MaxObjectSize:   DefaultMaxObjectSize,
		MetadataReserve: DefaultMetadataReserve,
		CompressionType: DefaultCompression,
		Partitions:      DefaultPartitions,
	}
}

// Validate says which field is wrong (KindInvalid) and what it may be.
func (c *Config) Validate() error {
	switch {
	case c.ChunkSize < MinChunkSize || c.ChunkSize > MaxChunkSize:
		return invalid("ChunkSize", c.ChunkSize, "from %d (64 KiB) to %d (64 MiB)", MinChunkSize, MaxChunkSize)
	case c.MaxObjectSize < 1 || c.MaxObjectSize > object.MaxFileSize:
		return invalid("MaxObjectSize", c.MaxObjectSize, "from 1 to %d", int64(object.MaxFileSize))
	case c.Partitions < 1 || c.Partitions > MaxPartitions:
		return invalid("Partitions", c.Partitions, "from 1 to %d", MaxPartitions)
	case c.MetadataPath == "":
		return invalid("MetadataPath", `""`, "a directory, such as %q", DefaultMetadataPath)
	case c.CompressionType != "none" && c.CompressionType != "snappy" && c.CompressionType != "zstd":
		return invalid("CompressionType", fmt.Sprintf("%q", c.CompressionType), `"none", "snappy" or "zstd"`)
	}
	if err := c.validatePaths(); err != nil {
		return err
	}
	return c.Cluster.validate()
}

// validatePaths refuses directories that lie in each other: a disk that is
// replaced must not take another one's data, or the names, with it.
func (c *Config) validatePaths() error {
	type field struct{ name, path string }
	fields := []field{{"MetadataPath", c.MetadataPath}, {"StoragePath", c.StoragePath}}
	for i, p := range c.ExtraStoragePaths {
		fields = append(fields, field{fmt.Sprintf("ExtraStoragePaths[%d]", i), p})
	}
	for i, f := range fields {
		if f.path == "" {
			return invalid(f.name, `""`, "a directory, such as %q", DefaultStoragePath)
		}
		abs, err := filepath.Abs(f.path)
		if err != nil {
			return object.Errorf(object.KindInvalid, "%s: %v", f.name, err)
		}
		fields[i].path = abs
		for _, g := range fields[:i] {
			if within(abs, g.path) || within(g.path, abs) {
				return object.Errorf(object.KindInvalid, "%s (%s) and %s (%s) lie in each other: give each a directory of its own",
					g.name, g.path, f.name, abs)
			}
		}
	}
	return nil
}

// within reports whether path is dir or lies below it; both are absolute.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

var nodeID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (c *ClusterConfig) validate() error {
	addresses := append([]string{c.HTTPAddr}, c.Join...)
	for i, a := range addresses {
		if host, port, err := net.SplitHostPort(a); a != "" && (err != nil || port == "" || i > 0 && host == "") || a == "" && i > 0 {
			return invalid([]string{"Cluster.HTTPAddr", "Cluster.Join"}[min(i, 1)], fmt.Sprintf("%q", a), "host:port, such as 10.0.0.1:8080")
		}
	}
	switch {
	case c.NodeID != "" && !nodeID.MatchString(c.NodeID):
		return invalid("Cluster.NodeID", fmt.Sprintf("%q", c.NodeID), "1 to 64 of A-Z a-z 0-9 . _ -")
	case c.Bootstrap && len(c.Join) > 0:
		return object.Errorf(object.KindInvalid, "Cluster.Bootstrap starts a new cluster and Cluster.Join joins one: give one of them")
	case c.HTTPAddr == "" && len(c.Join) > 0:
		return invalid("Cluster.HTTPAddr", `""`, "where other nodes reach this one, since it joins them")
	case c.ReplicationFactor < 0 || c.ReplicationFactor > replication.MaxReplicationFactor:
		return invalid("Cluster.ReplicationFactor", c.ReplicationFactor, "from 1 to %d, or 0 for 3", replication.MaxReplicationFactor)
	case c.Secret != "" && c.SecretFile != "":
		return object.Errorf(object.KindInvalid, "Cluster.Secret and Cluster.SecretFile are both given: give one of them")
	}
	return nil
}

func invalid(field string, got any, want string, args ...any) error {
	return object.Errorf(object.KindInvalid, "%s is %v; it must be %s", field, got, fmt.Sprintf(want, args...))
}

// node is the same in the engine's terms.
func (c *Config) node() replication.Config {
	id, logger := c.Cluster.NodeID, c.Logger
	if id == "" {
		id = DefaultNodeID
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return replication.Config{
		NodeID:          id,
		API:             c.Cluster.APIAddr,
		Peer:            c.Cluster.HTTPAddr,
		Advertise:       c.Cluster.Advertise,
		Join:            c.Cluster.Join,
		Waiting:         c.Cluster.Waiting,
		Secret:          c.Cluster.Secret,
		SecretFile:      c.Cluster.SecretFile,
		MetadataPath:    c.MetadataPath,
		StoragePaths:    append([]string{c.StoragePath}, c.ExtraStoragePaths...),
		MetadataReserve: c.MetadataReserve,
		Partitions:      c.Partitions,
		ChunkSize:       c.ChunkSize,
		MaxObjectSize:   c.MaxObjectSize,
		Compression:     c.CompressionType,
		BufferMemory:    max(replication.DefaultBufferMemory, 2*c.ChunkSize),
		Logger:          logger,

		ReplicationFactor: c.Cluster.ReplicationFactor,
	}
}
