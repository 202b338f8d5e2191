package server

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// decodeKey reads an object's key from the escaped rest of a URL path: what is
// behind the first '/', byte for byte, with nothing cleaned away.
func decodeKey(escaped string) (string, error) {
	key, err := url.PathUnescape(strings.TrimPrefix(escaped, "/"))
	if err != nil {
		return "", object.Errorf(object.KindInvalid, "the key is not percent-encoded rightly: %w", err)
	}
	return key, checkKey(key)
}

// checkKey refuses what no key may be.
func checkKey(key string) error {
	switch {
	case key == "":
		return object.Errorf(object.KindInvalid, "the key is empty; write /objects/BUCKET/KEY")
	case len(key) > object.MaxKey:
		return object.Errorf(object.KindNameTooLong, "the key has %d bytes; up to %d are allowed", len(key), object.MaxKey)
	case !utf8.ValidString(key):
		return object.Errorf(object.KindInvalid, "the key is not valid UTF-8")
	case strings.IndexByte(key, 0) >= 0:
		return object.Errorf(object.KindInvalid, "the key contains a NUL byte")
	}
	return nil
}

// decodeName reads a path parameter that is one component.
func decodeName(what, escaped string) (string, error) {
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return "", object.Errorf(object.KindInvalid, "the %s is not percent-encoded rightly: %w", what, err)
	}
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return "", object.Errorf(object.KindInvalid, "the %s is empty or contains a NUL byte", what)
	}
	return name, nil
}

// bucketAndKey are the two parameters of the routes under /objects.
func bucketAndKey(c *gin.Context) (bucket, key string, err error) {
	if bucket, err = decodeName("bucket's name", c.Param("bucket")); err != nil {
		return "", "", err
	}
	key, err = decodeKey(c.Param("key"))
	return bucket, key, err
}

// entryName is the query parameter ?name= of the routes under /fs: any bytes
// that a directory entry may have; the engine judges the rest.
func entryName(name string) error {
	switch {
	case name == "":
		return object.Errorf(object.KindInvalid, "the query needs name=NAME")
	case len(name) > object.MaxKey:
		return object.Errorf(object.KindNameTooLong, "the name has %d bytes", len(name))
	case strings.ContainsAny(name, "/\x00"):
		return object.Errorf(object.KindInvalid, "a name contains no '/' and no NUL byte")
	}
	return nil
}

// inodeParam is the path parameter of the routes under /fs.
func inodeParam(c *gin.Context) (object.InodeID, error) { return object.ParseInodeID(c.Param("inode")) }

// query is the URL's query, parsed strictly: a mistake is an error and not a
// parameter that is missing.
func query(c *gin.Context) (url.Values, error) {
	if c.Request.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, object.Errorf(object.KindInvalid, "the query is not understood: %w", err)
	}
	return q, nil
}

// boolParam is a parameter that is false when it is missing, and true when it has no value.
func boolParam(q url.Values, name string) (bool, error) {
	switch q.Get(name) {
	case "":
		return q.Has(name), nil
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, object.Errorf(object.KindInvalid, "%s=%q is neither true nor false", name, q.Get(name))
}

// verbOf reads the query of a route under /objects. Each form is a verb and the
// names that may go with it, such as "xattr create replace". What is in no form
// or in two is refused: a request that is only half understood would do what
// nobody asked for. verb is "" where there is no query.
func verbOf(c *gin.Context, forms ...string) (verb string, q url.Values, err error) {
	if q, err = query(c); err != nil || len(q) == 0 {
		return "", q, err
	}
	var names []string
	for _, form := range forms {
		if f := strings.Fields(form); q.Has(f[0]) {
			verb, names = f[0], f
			break
		}
	}
	for name, values := range q {
		if !slices.Contains(names, name) {
			return "", nil, object.Errorf(object.KindInvalid, "%s takes no %q in this query; it takes one of: %s (the rest of each is optional)",
				c.Request.Method, name, strings.Join(append(forms, "none"), ", "))
		}
		if len(values) > 1 {
			return "", nil, object.Errorf(object.KindInvalid, "the query names %q %d times; name it once", name, len(values))
		}
	}
	return verb, q, nil
}

// intParam reads a number from lo to hi; where it is missing, def.
func intParam(q url.Values, name string, def, lo, hi int64) (int64, error) {
	if !q.Has(name) {
		return def, nil
	}
	v, err := strconv.ParseInt(q.Get(name), 10, 64)
	if err != nil || v < lo || v > hi {
		return 0, object.Errorf(object.KindInvalid, "%s=%q is not a number from %d to %d", name, q.Get(name), lo, hi)
	}
	return v, nil
}
