package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// RenameFlags are those of renameat2.
type RenameFlags struct{ NoReplace, Exchange bool }

// WriteOptions go with a change of a file's content in place.
type WriteOptions struct {
	Size     int64   // as in PutOptions
	Append   bool    // write at the end, wherever that is when it is applied
	Truncate bool    // the file ends where the write ends
	Attr     SetAttr // attributes that travel with the write (Size must be nil)
	Cond     Conditions
}

func inodeCall(op, method string, ino object.InodeID, sub string, query url.Values) *call {
	return &call{op: op, method: method, path: "/fs/inodes/" + ino.String() + sub, query: query, mutation: method != http.MethodGet}
}

func entryCall(op, method string, dir object.InodeID, name string, query url.Values) *call {
	if query == nil {
		query = url.Values{}
	}
	query.Set("name", name)
	return &call{op: op, key: name, method: method, path: "/fs/dirs/" + dir.String() + "/entry", query: query, mutation: method != http.MethodGet}
}

func (c *Client) inode(ctx context.Context, k *call) (*object.Inode, error) {
	var out Inode
	if err := c.doJSON(ctx, k, &out); err != nil {
		return nil, err
	}
	return out.Inode, nil
}

// Lookup returns the inode behind a name of a directory.
func (c *Client) Lookup(ctx context.Context, dir object.InodeID, name string) (*object.Inode, error) {
	return c.inode(ctx, entryCall("lookup", "GET", dir, name, nil))
}

// Resolve walks a path of a bucket ("" is its root), following no symlink.
func (c *Client) Resolve(ctx context.Context, bucket, path string) (*object.Inode, error) {
	return c.inode(ctx, &call{op: "resolve", bucket: bucket, key: path, method: "GET", path: "/fs/resolve",
		query: url.Values{"bucket": {bucket}, "path": {path}}})
}

// GetAttr returns an inode's record, with its extended attributes.
func (c *Client) GetAttr(ctx context.Context, ino object.InodeID) (*object.Inode, error) {
	return c.inode(ctx, inodeCall("getattr", "GET", ino, "", nil))
}

// SetAttr changes attributes, the size among them, and returns the new record.
func (c *Client) SetAttr(ctx context.Context, ino object.InodeID, a SetAttr) (*object.Inode, error) {
	k, err := inodeCall("setattr", "PATCH", ino, "", nil).withJSON(a)
	if err != nil {
		return nil, err
	}
	return c.inode(ctx, k)
}

// ReadDir returns up to limit entries behind cursor ("" starts) and the next
// cursor ("" at the end); with plus, each with its inode where at hand, but
// without extended attributes and user metadata: GetAttr has those.
func (c *Client) ReadDir(ctx context.Context, dir object.InodeID, cursor string, limit int, plus bool) ([]object.DirEntry, string, error) {
	q := url.Values{}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if plus {
		q.Set("plus", "")
	}
	var page DirPage
	k := &call{op: "readdir", method: "GET", path: "/fs/dirs/" + dir.String() + "/entries", query: q}
	if err := c.doJSON(ctx, k, &page); err != nil {
		return nil, "", err
	}
	out := make([]object.DirEntry, len(page.Entries))
	for i, e := range page.Entries {
		out[i] = object.DirEntry{Dentry: object.Dentry{Name: string(e.Name), Inode: object.InodeID(e.ID), Type: object.FileType(e.Type)}, Attr: e.Inode.Inode, Plain: e.Plain}
	}
	return out, string(page.Cursor), nil
}

// Create makes a node of any type. When the name is taken: KindExists if
// node.Exclusive, else the regular file there, with created == false.
func (c *Client) Create(ctx context.Context, dir object.InodeID, name string, node NewNode) (ino *object.Inode, created bool, err error) {
	k, err := entryCall("create", "POST", dir, name, nil).withJSON(node)
	if err != nil {
		return nil, false, err
	}
	var out Created
	err = c.doJSON(ctx, k, &out)
	return out.Inode.Inode, out.Created, err
}

// CreateWith makes a regular file with its whole content and attributes in one
// step; KindExists when the name is taken.
func (c *Client) CreateWith(ctx context.Context, dir object.InodeID, name string, node NewNode, body io.Reader, o WriteOptions) (*object.Inode, error) {
	k := entryCall("create", "PUT", dir, name, nil)
	raw, err := json.Marshal(node)
	if err != nil {
		return nil, k.fail(&object.Error{Kind: object.KindInvalid, Err: err})
	}
	k.set(HeaderNode, string(raw))
	if err := o.stamp(k, body); err != nil {
		return nil, err
	}
	return c.inode(ctx, k)
}

// Link gives an inode another name.
func (c *Client) Link(ctx context.Context, ino, dir object.InodeID, name string) (*object.Inode, error) {
	k := entryCall("link", "POST", dir, name, nil)
	k.path = "/fs/dirs/" + dir.String() + "/link"
	k, err := k.withJSON(LinkRequest{ID(ino)})
	if err != nil {
		return nil, err
	}
	return c.inode(ctx, k)
}

// Unlink removes a name that is not a directory's.
func (c *Client) Unlink(ctx context.Context, dir object.InodeID, name string) error {
	return c.doJSON(ctx, entryCall("unlink", "DELETE", dir, name, nil), nil)
}

// Rmdir removes an empty directory.
func (c *Client) Rmdir(ctx context.Context, dir object.InodeID, name string) error {
	return c.doJSON(ctx, entryCall("rmdir", "DELETE", dir, name, url.Values{"dir": {""}}), nil)
}

// Rename moves an entry, over what is there unless the flags say otherwise.
func (c *Client) Rename(ctx context.Context, dir object.InodeID, name string, newDir object.InodeID, newName string, f RenameFlags) error {
	k, err := (&call{op: "rename", key: name, method: "POST", path: "/fs/dirs/" + dir.String() + "/rename", mutation: true}).withJSON(RenameRequest{
		Name: Name(name), NewDir: ID(newDir), NewName: Name(newName), NoReplace: f.NoReplace, Exchange: f.Exchange})
	if err != nil {
		return err
	}
	return c.doJSON(ctx, k, nil)
}

// ReadRange fills dst with the file's bytes from off on and returns how many
// there were: fewer than len(dst) only where the file ends. With version != 0
// it fails with KindPrecondition when the content is of another one.
func (c *Client) ReadRange(ctx context.Context, ino object.InodeID, off int64, dst []byte, version uint64) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	k := contentCall(ino, off, int64(len(dst)), version)
	n := 0
	k.consume = func(resp *http.Response) (err error) {
		if err := checkRange(resp, contentRange(off, int64(len(dst)))); err != nil {
			return err
		}
		n, err = io.ReadFull(resp.Body, dst)
		if err == nil || errors.Is(err, io.EOF) || int64(n) == resp.ContentLength {
			return nil
		}
		return brokeOff(err)
	}
	_, err := c.do(ctx, k)
	if object.IsKind(err, object.KindRange) {
		return 0, nil // behind the end
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Seek is the first offset from off on that has data, or that has none (hole): the
// end of the file is one. KindRange where off is not in the file, or no data follows.
func (c *Client) Seek(ctx context.Context, ino object.InodeID, off int64, hole bool) (int64, error) {
	q := url.Values{"offset": {strconv.FormatInt(off, 10)}}
	if hole {
		q.Set("hole", "")
	}
	var out Place
	err := c.doJSON(ctx, inodeCall("seek", "GET", ino, "/seek", q), &out)
	return out.Offset, err
}

// OpenRange streams n bytes of the file from off on, or to its end with n < 0.
// The caller closes it. A body that breaks off ends in an error.
func (c *Client) OpenRange(ctx context.Context, ino object.InodeID, off, n int64, version uint64) (io.ReadCloser, error) {
	resp, err := c.do(ctx, contentCall(ino, off, n, version))
	if object.IsKind(err, object.KindRange) {
		return http.NoBody, nil
	}
	if err != nil {
		return nil, err
	}
	if err := checkRange(resp, contentRange(off, n)); err != nil {
		resp.Body.Close()
		return nil, object.WithOp(err, "read", "", "")
	}
	return resp.Body, nil
}

// contentRange is n bytes from off on, or all of them with n < 0.
func contentRange(off, n int64) object.Range {
	if n < 0 {
		return object.Range{Start: off, End: -1}
	}
	return object.Range{Start: off, End: off + n - 1}
}

func contentCall(ino object.InodeID, off, n int64, version uint64) *call {
	k := inodeCall("read", "GET", ino, "/content", nil)
	if version != 0 {
		k.query = url.Values{"version": {strconv.FormatUint(version, 10)}}
	}
	k.set("Range", "bytes="+rangeSpec(contentRange(off, n)))
	return k
}

// stamp puts the options and the body into a call.
func (o WriteOptions) stamp(k *call, body io.Reader) error {
	k.body, k.size = body, o.Size
	if !o.Attr.IsZero() {
		raw, err := json.Marshal(o.Attr)
		if err != nil {
			return k.fail(&object.Error{Kind: object.KindInvalid, Err: err})
		}
		k.set(HeaderAttr, string(raw))
	}
	o.Cond.stamp(k)
	return nil
}
