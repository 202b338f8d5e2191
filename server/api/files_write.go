package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Write changes bytes in place, durable and visible when it returns. It
// returns the new record and where the bytes went.
func (c *Client) Write(ctx context.Context, ino object.InodeID, off int64, body io.Reader, o WriteOptions) (*object.Inode, int64, error) {
	q := url.Values{"offset": {strconv.FormatInt(off, 10)}}
	if o.Append {
		q = url.Values{"append": {""}}
	}
	if o.Truncate {
		q.Set("truncate", "")
	}
	k := inodeCall("write", "PUT", ino, "/content", q)
	if err := o.stamp(k, body); err != nil {
		return nil, 0, err
	}
	var out Written
	err := c.doJSON(ctx, k, &out)
	return out.Inode.Inode, out.Offset, err
}

// Append writes at the end of the file.
func (c *Client) Append(ctx context.Context, ino object.InodeID, body io.Reader, o WriteOptions) (*object.Inode, int64, error) {
	o.Append = true
	return c.Write(ctx, ino, 0, body, o)
}

// Punch makes a hole of [off, off+length). The size stays, or with grow becomes at
// least off+length; then the hole may be empty.
func (c *Client) Punch(ctx context.Context, ino object.InodeID, off, length int64, grow bool) (*object.Inode, error) {
	q := url.Values{"offset": {strconv.FormatInt(off, 10)}, "length": {strconv.FormatInt(length, 10)}}
	if grow {
		q.Set("grow", "")
	}
	return c.inode(ctx, inodeCall("punch", "DELETE", ino, "/content", q))
}

// CopyRange shares bytes of src with dst and moves no data. It returns dst's
// new record and how many bytes were copied.
func (c *Client) CopyRange(ctx context.Context, src object.InodeID, srcOff int64, dst object.InodeID, dstOff, length int64) (*object.Inode, int64, error) {
	k, err := inodeCall("copy range", "POST", dst, "/copy", nil).withJSON(CopyRange{
		Source: ID(src), SourceOffset: srcOff, Offset: dstOff, Length: length})
	if err != nil {
		return nil, 0, err
	}
	k.slow = true
	var out Written
	err = c.doJSON(ctx, k, &out)
	return out.Inode.Inode, out.Length, err
}

// SetXattr sets an extended attribute; create and replace as XATTR_CREATE
// (KindExists) and XATTR_REPLACE (KindNoAttr).
func (c *Client) SetXattr(ctx context.Context, ino object.InodeID, name string, value []byte, create, replace bool) error {
	q := url.Values{"name": {name}}
	if create {
		q.Set("create", "")
	}
	if replace {
		q.Set("replace", "")
	}
	k := inodeCall("set xattr", "PUT", ino, "/xattr", q)
	k.body = newBytes(value)
	return c.doJSON(ctx, k, nil)
}

// RemoveXattr removes one; KindNoAttr when there is none.
func (c *Client) RemoveXattr(ctx context.Context, ino object.InodeID, name string) error {
	return c.doJSON(ctx, inodeCall("remove xattr", "DELETE", ino, "/xattr", url.Values{"name": {name}}), nil)
}

// Hold keeps unlinked files alive while this client's session has them open;
// with no inode it renews the session.
func (c *Client) Hold(ctx context.Context, inos []object.InodeID) error {
	return c.holdOrRelease(ctx, "hold", inos)
}

// Release ends holds.
func (c *Client) Release(ctx context.Context, inos []object.InodeID) error {
	return c.holdOrRelease(ctx, "release", inos)
}

func (c *Client) holdOrRelease(ctx context.Context, op string, inos []object.InodeID) error {
	ids := make([]ID, len(inos))
	for i, ino := range inos {
		ids[i] = ID(ino)
	}
	k, err := (&call{op: op, method: "POST", path: "/fs/" + op, mutation: true}).withJSON(HoldRequest{Session: c.session.Load().id, Inodes: ids})
	if err != nil {
		return err
	}
	return c.doJSON(ctx, k, nil)
}

// StatFS tells the capacity of the cluster.
func (c *Client) StatFS(ctx context.Context) (u Usage, err error) {
	return u, c.doJSON(ctx, &call{op: "statfs", method: "GET", path: "/fs/usage"}, &u)
}

// Health asks one endpoint, by its place in NewClient's list, whether it is
// ready to serve; it asks once.
func (c *Client) Health(ctx context.Context, endpoint int) error {
	if endpoint < 0 || endpoint >= len(c.nodes.urls) {
		return object.Errorf(object.KindInvalid, "there is no endpoint %d; the client has %d", endpoint, len(c.nodes.urls))
	}
	k := &call{op: "health", method: "GET", path: "/readyz"}
	k.consume = func(resp *http.Response) error {
		_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxProblem))
		return brokeOff(err)
	}
	if _, err := c.attempt(ctx, k, endpoint, &payload{}); err != nil {
		return k.fail(err)
	}
	return nil
}
