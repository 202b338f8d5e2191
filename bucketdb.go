// Package bucketdb embeds BucketDB, an object store that is also a filesystem,
// in another Go program.
//
//	cfg := bucketdb.DefaultConfig()
//	db, err := bucketdb.NewBucketDB(cfg)
//	if err != nil { ... }
//	defer db.Close()
//	err = db.CreateBucket("assets", "admin")
//	err = db.PutObject("assets", "video.mp4", data, nil)
//	data, err = db.GetObject("assets", "video.mp4", nil)
//
// A success answer means that the data and its name are on disk, fsynced. Every
// operation on one object is one linearizable step. Embedded alone, a BucketDB
// opens no port.
//
// Each operation comes plain and with a context (PutObject, PutObjectContext).
// Errors are of type *object.Error; object.KindOf tells what went wrong.
package bucketdb

import (
	"context"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// BucketDB is one node, embedded. It is safe for concurrent use.
type BucketDB struct {
	node *replication.Node
}

// NewBucketDB opens the store that cfg describes, creating it where there is
// none, and returns when it can serve. nil is DefaultConfig. Errors: KindInvalid
// names the field that is wrong, KindBusy another process that has the store
// open, KindVersion a store that a newer BucketDB wrote. A node that joins a cluster
// waits for it until the context of Open ends. Close it when done.
func NewBucketDB(cfg *Config) (*BucketDB, error) {
	return Open(context.Background(), cfg)
}

// Open is NewBucketDB with a context that bounds the start.
func Open(ctx context.Context, cfg *Config) (*BucketDB, error) {
	if cfg == nil {
		cfg = DefaultConfig()
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	node, err := replication.Open(ctx, cfg.node())
	if err != nil {
		return nil, object.WithOp(err, "open", "", "")
	}
	return &BucketDB{node: node}, nil
}

// Close stops the node cleanly. What was acknowledged is on disk already.
func (db *BucketDB) Close() error { return db.node.Close() }

// Node is the node itself, for doors such as package server that show it to others.
func (db *BucketDB) Node() *replication.Node { return db.node }

// JoinToken is the secret that other nodes need to join the cluster that this node
// founded, if this very start made it; else "". Keep it as you would a password.
func (db *BucketDB) JoinToken() string { return db.node.JoinToken() }

// IsNotFound reports whether err says that there is no such object or bucket.
func IsNotFound(err error) bool {
	return object.IsKind(err, object.KindNotFound) || object.IsKind(err, object.KindBucketNotFound)
}
