package namespace

import "github.com/fxamacker/cbor/v2"

// codec is CBOR (RFC 8949) with integer keys: compact, and a field may be added
// without breaking what is stored. Names are any bytes, so text is not checked
// for UTF-8.
var codec = func() (c struct {
	enc cbor.EncMode
	dec cbor.DecMode
}) {
	var err error
	if c.enc, err = (cbor.EncOptions{Sort: cbor.SortBytewiseLexical}).EncMode(); err != nil {
		panic(err) // the options above are constant
	}
	if c.dec, err = (cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid, MaxNestedLevels: 64}).DecMode(); err != nil {
		panic(err)
	}
	return c
}()
