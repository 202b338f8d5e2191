package api

import (
	"context"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The types of Storage.
const (
	StorageReplicated = "replicated"
	StorageRS         = "rs"
)

// Storage says how a bucket's data is kept: as copies, each on a node of its own, or
// as data and parity shards of Reed-Solomon, of which any Data give it back.
type Storage struct {
	Type   string `json:"type"`             // StorageReplicated or StorageRS
	Copies int    `json:"copies,omitempty"` // of StorageReplicated: 1 to 64
	Data   int    `json:"data,omitempty"`   // of StorageRS: at least 2
	Parity int    `json:"parity,omitempty"` // of StorageRS: at least 1; 64 together with Data
}

// Rewriting is how far the data that was there before a change of Storage is with
// following it. It ends by being no longer there.
type Rewriting struct {
	Started time.Time `json:"started"`
	Pass    int       `json:"pass"`   // over the bucket's names; the last one finds nothing to change
	Seen    uint64    `json:"seen"`   // names that this pass has seen
	Walked  bool      `json:"walked"` // the passes are over
	Left    uint64    `json:"left"`   // then: about the files of the whole cluster that are to be rewritten
}

// StorageOf is a scheme as the contract shows it.
func StorageOf(s object.Scheme) Storage {
	data, parity := s.Split()
	if data == 1 {
		return Storage{Type: StorageReplicated, Copies: 1 + parity}
	}
	return Storage{Type: StorageRS, Data: data, Parity: parity}
}

// Scheme is the scheme that s describes; KindInvalid says what is wrong with it.
func (s Storage) Scheme() (object.Scheme, error) {
	switch {
	case s.Type != StorageReplicated && s.Type != StorageRS:
		return 0, object.Errorf(object.KindInvalid, `there is no storage of type %q: use {"type":"replicated","copies":3} or {"type":"rs","data":4,"parity":2}`, s.Type)
	case s.Type == StorageReplicated && (s.Data != 0 || s.Parity != 0):
		return 0, object.Errorf(object.KindInvalid, `replicated storage has no shards: give "copies", or the type "rs"`)
	case s.Type == StorageReplicated && (s.Copies < 1 || s.Copies > object.MaxWidth):
		return 0, object.Errorf(object.KindInvalid, `%d copies are not possible: give "copies" from 1 to %d`, s.Copies, object.MaxWidth)
	case s.Type == StorageReplicated:
		return object.NewScheme(1, s.Copies-1)
	case s.Copies != 0:
		return 0, object.Errorf(object.KindInvalid, `Reed-Solomon storage has no copies: give "data" and "parity", or the type "replicated"`)
	case s.Data < 2 || s.Parity < 1 || s.Data > object.MaxWidth || s.Parity > object.MaxWidth || s.Data+s.Parity > object.MaxWidth:
		return 0, object.Errorf(object.KindInvalid, `%d data and %d parity shards are not possible: give at least 2 "data", at least 1 "parity", and at most %d together`, s.Data, s.Parity, object.MaxWidth)
	}
	return object.NewScheme(s.Data, s.Parity)
}

// SetStorage changes how a bucket's data is kept: what is written from now on at
// once, what is there in the background (Bucket.Rewriting). KindInvalid: it cannot
// be, or the cluster has too few nodes for it.
func (c *Client) SetStorage(ctx context.Context, bucket string, s Storage) (b Bucket, err error) {
	k, err := (&call{op: "set storage", bucket: bucket, method: "PATCH", path: "/buckets/" + EscapeKey(bucket), mutation: true}).
		withJSON(BucketChange{Storage: &s})
	if err != nil {
		return b, err
	}
	return b, c.doJSON(ctx, k, &b)
}
