package pins

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// leaseRequest asks for leases of partitions, each named once.
type leaseRequest struct {
	Partitions []uint16 `cbor:"1,keyasint"`
}

// leaseAnswer says which of them were given, in the order of the request.
type leaseAnswer struct {
	Given []bool `cbor:"1,keyasint"`
}

// pinsRequest asks what of some garbage is needed.
type pinsRequest struct {
	Partition uint16 `cbor:"1,keyasint"`
	Items     []Item `cbor:"2,keyasint"`
}

// pinsAnswer says it, in the order of the request.
type pinsAnswer struct {
	Needed []bool `cbor:"1,keyasint"`
}

func encode(v any) ([]byte, error) { return cbor.Marshal(v) }

// decode reads a message and judges its size. KindInvalid for what is none.
func decode(data []byte, into any) error {
	err := cbor.Unmarshal(data, into)
	if err == nil {
		switch m := into.(type) {
		case *leaseRequest:
			err = atMost(len(m.Partitions), object.MaxPartitions)
		case *pinsRequest:
			err = atMost(len(m.Items), MaxItems)
		}
	}
	if err != nil {
		return object.Errorf(object.KindInvalid, "a message about pins cannot be read: %w", err)
	}
	return nil
}

func atMost(n, limit int) error {
	if n > limit {
		return fmt.Errorf("it lists %d, more than %d", n, limit)
	}
	return nil
}
