package namespace

import (
	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// codec is CBOR (RFC 8949) with integer keys: compact, and a field may be added
// without breaking what is stored. Names are any bytes, so text is not checked
// for UTF-8; a Cascade nests once for each directory of a key.
var codec = func() (c struct {
	enc cbor.UserBufferEncMode
	dec cbor.DecMode
}) {
	var err error
	if c.enc, err = (cbor.EncOptions{Sort: cbor.SortBytewiseLexical}).UserBufferEncMode(); err != nil {
		panic(err) // the options above are constant
	}
	if c.dec, err = (cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid, MaxNestedLevels: 2 * object.MaxKey}).DecMode(); err != nil {
		panic(err)
	}
	return c
}()
