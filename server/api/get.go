package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// GetOptions select what a Get returns.
type GetOptions struct {
	Range *object.Range // nil: the whole object
	Cond  Conditions
}

// Reader is the body of a Get. A body that the server broke off ends in an
// error, never in a clean io.EOF. Where a node dies in mid-body the rest is
// asked of the next one, under the ETag of the first answer.
type Reader struct {
	Object       // Size is that of the whole object
	Length int64 // of what this reader yields

	c    *Client
	ctx  context.Context // of the Get, for the requests that go on with it
	body io.ReadCloser
	next int64 // offset of the next byte in the object
	end  int64
	errs int // bodies that broke off one after another
	node int // that the body comes from
}

// Get opens an object for reading. The caller closes the reader.
func (c *Client) Get(ctx context.Context, bucket, key string, o GetOptions) (*Reader, error) {
	k := objectCall("get", "GET", bucket, key, nil)
	o.Cond.stamp(k)
	if o.Range != nil {
		k.set("Range", "bytes="+rangeSpec(*o.Range))
	}
	resp, err := c.do(ctx, k)
	if err != nil {
		return nil, err
	}
	obj, err := objectOfHeaders(bucket, key, resp)
	if err == nil && o.Range != nil {
		err = checkRange(resp, *o.Range)
	}
	if err == nil && resp.ContentLength < 0 {
		err = object.Errorf(object.KindInternal, "the server did not say how long the answer is; is a proxy changing it?")
	}
	if err != nil {
		resp.Body.Close()
		return nil, k.fail(err)
	}
	r := &Reader{Object: obj, Length: resp.ContentLength, c: c, ctx: ctx, body: resp.Body, end: resp.ContentLength, node: k.node}
	if o.Range != nil {
		if off, n, ok := o.Range.Resolve(obj.Size); ok {
			r.next, r.end = off, off+n
		}
	}
	return r, nil
}

// checkRange fails unless an answer is the range that was asked for: a proxy may
// drop the Range header, and the bytes would be taken for others. An answer with
// everything is right where everything was asked for.
func checkRange(resp *http.Response, want object.Range) error {
	size := resp.ContentLength
	if resp.StatusCode == http.StatusOK {
		off, n, _ := want.Resolve(size)
		if size == 0 || (off == 0 && n == size) {
			return nil
		}
	}
	got := resp.Header.Get("Content-Range")
	if _, total, ok := strings.Cut(got, "/"); ok && resp.StatusCode == http.StatusPartialContent {
		size, err := strconv.ParseInt(total, 10, 64)
		off, n, ok := want.Resolve(size)
		if err == nil && ok && got == fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, size) {
			return nil
		}
	}
	return object.Errorf(object.KindInternal, "bytes %s were asked for, and the server answered %s with Content-Range %q; is a proxy changing Range headers?",
		rangeSpec(want), resp.Status, got)
}

func rangeSpec(r object.Range) string {
	switch {
	case r.Start < 0:
		return "-" + strconv.FormatInt(r.End, 10)
	case r.End < 0:
		return strconv.FormatInt(r.Start, 10) + "-"
	}
	return strconv.FormatInt(r.Start, 10) + "-" + strconv.FormatInt(r.End, 10)
}

// Read reads the body; not safe for concurrent use.
func (r *Reader) Read(b []byte) (int, error) {
	for {
		if r.next >= r.end {
			return 0, io.EOF
		}
		n, err := r.body.Read(b)
		r.next += int64(n)
		if n > 0 {
			r.errs = 0
			return n, nil // an error comes again with the next Read
		}
		if err == nil {
			return 0, nil
		}
		if err := r.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume asks for the rest of the same version after the body broke off.
func (r *Reader) resume(cause error) error {
	failed := object.WithOp(brokeOff(cause), "get", string(r.Bucket), string(r.Key))
	if r.ctx.Err() != nil {
		return object.WithOp(r.ctx.Err(), "get", string(r.Bucket), string(r.Key))
	}
	r.errs++
	if r.ETag == "" || r.errs > r.c.opts.Retries {
		return failed
	}
	if err := sleep(r.ctx, backoff(r.errs-1, len(r.c.nodes.urls))); err != nil {
		return failed
	}
	r.c.nodes.failed(r.node)
	rest, err := r.c.Get(r.ctx, string(r.Bucket), string(r.Key), GetOptions{
		Range: &object.Range{Start: r.next, End: r.end - 1}, Cond: Conditions{IfMatch: []string{r.ETag}}})
	if err != nil {
		return failed // it broke off, and why the rest cannot be had matters less
	}
	r.body.Close()
	r.body, r.node = rest.body, rest.node
	return nil
}

// Close ends the reading.
func (r *Reader) Close() error { return r.body.Close() }
