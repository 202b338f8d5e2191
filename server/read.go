package server

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// getObject is GET /objects/:bucket/*key.
func (s *Server) getObject(c *gin.Context) error {
	bucket, key, err := bucketAndKey(c)
	if err != nil {
		return err
	}
	verb, q, err := verbOf(c, "attributes", "xattr", "upload after limit")
	if err != nil {
		return err
	}
	switch verb {
	case "attributes":
		return s.getAttributes(c, bucket, key)
	case "xattr":
		return s.getXattr(c, bucket, key, q.Get("xattr"))
	case "upload":
		return s.listParts(c, bucket, key, q)
	}
	if key[len(key)-1] == '/' {
		return s.headObject(c) // a directory has no bytes
	}
	r, err := s.node.OpenObject(c.Request.Context(), bucket, key)
	if err != nil {
		return object.WithOp(err, "get", bucket, key)
	}
	defer r.Close()
	return s.serve(c, r)
}

// headObject is HEAD /objects/:bucket/*key.
func (s *Server) headObject(c *gin.Context) error {
	bucket, key, err := bucketAndKey(c)
	if err != nil {
		return err
	}
	if _, _, err := verbOf(c); err != nil {
		return err
	}
	obj, err := s.node.Stat(c.Request.Context(), bucket, key)
	if err != nil {
		return object.WithOp(err, "head", bucket, key)
	}
	if _, err := describe(c, obj.Inode); err != nil {
		return err
	}
	s.begin(c, http.StatusOK, sizeOf(obj.Inode))
	return nil
}

// serve answers a read with one pinned version of a file.
func (s *Server) serve(c *gin.Context, r *replication.Reader) error {
	n := r.Inode()
	spans, err := describe(c, n)
	if err != nil {
		return err
	}
	size := sizeOf(n)
	if len(spans) > 1 {
		return s.serveParts(c, r, spans)
	}
	sp, status := span{0, size}, http.StatusOK
	if len(spans) == 1 {
		sp, status = spans[0], http.StatusPartialContent
		c.Writer.Header()["Content-Range"] = []string{contentRange(sp, size)}
	}
	s.begin(c, status, sp.length)
	if sp.length == 0 {
		return nil
	}
	return r.WriteRange(c.Request.Context(), s.progress(c), sp.offset, sp.length)
}

// begin sets status and length. They are written with the first byte of the
// body, so that trouble before it still gets an answer of its own.
func (s *Server) begin(c *gin.Context, status int, length int64) {
	c.Writer.Header()["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	c.Status(status)
	if length == 0 || c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
	}
}

// serveParts answers several ranges as multipart/byteranges (RFC 9110 section 14.6).
func (s *Server) serveParts(c *gin.Context, r *replication.Reader, spans []span) error {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return object.WithOp(err, "get", "", "")
	}
	boundary, size := hex.EncodeToString(raw[:]), sizeOf(r.Inode())
	contentType := contentTypeOf(r.Inode())
	heads := make([]string, len(spans))
	closing := "\r\n--" + boundary + "--\r\n"
	total := int64(len(closing))
	for i, sp := range spans {
		heads[i] = fmt.Sprintf("\r\n--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n", boundary, contentType, contentRange(sp, size))
		if i == 0 {
			heads[i] = heads[i][2:]
		}
		total += int64(len(heads[i])) + sp.length
	}
	c.Writer.Header()["Content-Type"] = []string{"multipart/byteranges; boundary=" + boundary}
	s.begin(c, http.StatusPartialContent, total)
	w := s.progress(c)
	for i, sp := range spans {
		if _, err := io.WriteString(w, heads[i]); err != nil {
			return err
		}
		if err := r.WriteRange(c.Request.Context(), w, sp.offset, sp.length); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, closing)
	return err
}

// describe judges the request's conditions and ranges against a file and sets
// the headers that tell about it. No span means the whole file.
func describe(c *gin.Context, n *object.Inode) ([]span, error) {
	in, out := c.Request.Header, c.Writer.Header()
	cond, err := conditionsOf(in)
	if err != nil {
		return nil, err
	}
	setHeaders(out, n)
	if err := judgeRead(cond, n); err != nil {
		return nil, err
	}
	header := first(in["Range"])
	// RFC 9110 section 14.2 defines ranges for GET alone.
	if header == "" || c.Request.Method != http.MethodGet || n.Type != object.TypeRegular || !ifRangeHolds(first(in["If-Range"]), n) {
		return nil, nil
	}
	ranges, ok := parseRange(header)
	if !ok {
		return nil, nil
	}
	spans := resolveRanges(ranges, n.Size)
	if len(spans) == 0 {
		out["Content-Range"] = []string{"bytes */" + strconv.FormatInt(n.Size, 10)}
		return nil, object.Errorf(object.KindRange, "no byte of %s exists: the size is %d", header, n.Size)
	}
	return spans, nil
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// setHeaders tells about a file. This is on the path of every read: the names are
// in canonical form, and the values share one string and one array.
func setHeaders(h http.Header, n *object.Inode) {
	v := headerValues{text: make([]byte, 0, 256)}
	v.text = append(appendETag(append(v.text, '"'), n), '"')
	v.end("Etag")
	v.text = time.Unix(0, n.Mtime).UTC().AppendFormat(v.text, api.TimeFormat)
	v.end("Last-Modified")
	v.text = strconv.AppendInt(v.text, n.Mtime, 10)
	v.end(api.HeaderMtime)
	v.text = appendID(v.text, uint64(n.ID))
	v.end(api.HeaderInode)
	v.text = strconv.AppendUint(v.text, n.Version, 10)
	v.end(api.HeaderVersion)
	v.text = strconv.AppendUint(v.text, uint64(n.Mode), 8)
	v.end(api.HeaderMode)
	if len(n.SHA256) > 0 {
		v.text = hex.AppendEncode(v.text, n.SHA256)
		v.end(api.HeaderSHA256)
	}
	v.set(h, "Accept-Ranges", "bytes", "Content-Type", contentTypeOf(n), "X-Content-Type-Options", "nosniff")
	if n.UID != 0 || n.GID != 0 {
		h[api.HeaderUID] = []string{strconv.FormatUint(uint64(n.UID), 10)}
		h[api.HeaderGID] = []string{strconv.FormatUint(uint64(n.GID), 10)}
	}
	for name, value := range n.Meta {
		h[http.CanonicalHeaderKey(api.HeaderMeta+name)] = []string{value}
	}
}

// headerValues gathers the values of headers in one piece of text.
type headerValues struct {
	text  []byte
	names [8]string
	ends  [8]int // in text
	n     int
}

// end says that a header's value ends here.
func (v *headerValues) end(name string) {
	v.names[v.n], v.ends[v.n] = name, len(v.text)
	v.n++
}

// set fills the headers, and those of more: names and values in turn.
func (v *headerValues) set(h http.Header, more ...string) {
	values := make([]string, 0, v.n+len(more)/2)
	put := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	all, start := string(v.text), 0
	for i, end := range v.ends[:v.n] {
		put(v.names[i], all[start:end])
		start = end
	}
	for i := 0; i < len(more); i += 2 {
		put(more[i], more[i+1])
	}
}

// appendETag is n.ETag without its garbage.
func appendETag(b []byte, n *object.Inode) []byte {
	if n.ETagValue != "" {
		return append(b, n.ETagValue...)
	}
	return appendID(append(appendID(b, uint64(n.ID)), '-'), n.Version)
}

// appendID writes a number as object.InodeID does.
func appendID(b []byte, id uint64) []byte {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], id)
	return hex.AppendEncode(b, raw[:])
}

func contentTypeOf(n *object.Inode) string {
	switch {
	case n.ContentType != "":
		return n.ContentType
	case n.IsDir():
		return "application/x-directory"
	}
	return "application/octet-stream"
}

// sizeOf is the number of bytes a reader gets.
func sizeOf(n *object.Inode) int64 {
	if n.Type != object.TypeRegular {
		return 0
	}
	return n.Size
}

func contentRange(s span, size int64) string {
	return "bytes " + strconv.FormatInt(s.offset, 10) + "-" + strconv.FormatInt(s.end()-1, 10) + "/" + strconv.FormatInt(size, 10)
}
