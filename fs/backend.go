package fs

import (
	"context"
	"io"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Backend is what a mount needs of the cluster: the filesystem verbs of
// api.Client, by inode and by (directory inode, name), whose documentation
// holds here too. Each call is one linearizable step; errors are
// *object.Error. Implementations are safe for concurrent use, retry what may
// be retried themselves, and end when ctx does.
type Backend interface {
	Lookup(ctx context.Context, dir object.InodeID, name string) (*object.Inode, error)
	GetAttr(ctx context.Context, ino object.InodeID) (*object.Inode, error)
	SetAttr(ctx context.Context, ino object.InodeID, a api.SetAttr) (*object.Inode, error)
	ReadDir(ctx context.Context, dir object.InodeID, cursor string, limit int, plus bool) ([]object.DirEntry, string, error)

	Create(ctx context.Context, dir object.InodeID, name string, node api.NewNode) (ino *object.Inode, created bool, err error)
	Link(ctx context.Context, ino, dir object.InodeID, name string) (*object.Inode, error)
	Unlink(ctx context.Context, dir object.InodeID, name string) error
	Rmdir(ctx context.Context, dir object.InodeID, name string) error
	Rename(ctx context.Context, dir object.InodeID, name string, newDir object.InodeID, newName string, f api.RenameFlags) error

	// ReadRange fails with KindPrecondition when version is not 0 and the
	// content is of another one.
	ReadRange(ctx context.Context, ino object.InodeID, off int64, dst []byte, version uint64) (int, error)
	Write(ctx context.Context, ino object.InodeID, off int64, body io.Reader, o api.WriteOptions) (*object.Inode, int64, error)
	Punch(ctx context.Context, ino object.InodeID, off, length int64, grow bool) (*object.Inode, error)
	Seek(ctx context.Context, ino object.InodeID, off int64, hole bool) (int64, error)
	CopyRange(ctx context.Context, src object.InodeID, srcOff int64, dst object.InodeID, dstOff, length int64) (*object.Inode, int64, error)

	SetXattr(ctx context.Context, ino object.InodeID, name string, value []byte, create, replace bool) error
	RemoveXattr(ctx context.Context, ino object.InodeID, name string) error

	Hold(ctx context.Context, inos []object.InodeID) error
	Release(ctx context.Context, inos []object.InodeID) error
	StatFS(ctx context.Context) (api.Usage, error)
	// Endpoint names the node that calls go to at present. Holds are that node's
	// memory: another one has to be told of them.
	Endpoint() string

	// Keep returns a context for one SetAttr or Write and its token, kept until
	// Done, so that what came of a call that failed can be found out.
	Keep(ctx context.Context) (context.Context, Kept)

	// Events opens a stream of every change from now on.
	Events(ctx context.Context) (EventStream, error)
}

// Kept is the token of one change of a file's content; api.Kept has the details.
type Kept interface {
	// Settle decides what came of the change: happened, and then it returns what
	// its call would have, or not, and then it never will.
	Settle(ctx context.Context, ino object.InodeID) (n *object.Inode, at int64, happened bool, err error)
	// Unheard reports whether the change may have been made although its call failed.
	Unheard() bool
	Done()
}

// EventStream is an open stream of changes. Close may be called while Next waits.
type EventStream interface {
	Next() (api.Event, error)
	Close() error
}

// clientBackend is the Backend over REST.
type clientBackend struct{ *api.Client }

// NewBackend makes a Backend of a client.
func NewBackend(c *api.Client) Backend { return clientBackend{c} }

func (c clientBackend) Keep(ctx context.Context) (context.Context, Kept) {
	return c.Client.Keep(ctx)
}

func (c clientBackend) Events(ctx context.Context) (EventStream, error) {
	return c.Client.Events(ctx, nil)
}
