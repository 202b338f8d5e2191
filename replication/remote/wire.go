package remote

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Bounds of one answer. A scan begins small, since most end within a few entries,
// and doubles.
const (
	firstEntries = 16
	maxEntries   = 1024
	maxBytes     = 256 << 10
)

type kind uint8

const (
	opGet kind = iota + 1
	opScan
	opClose
)

// request is one step on a view. View 0 opens one first, at a state that is
// linearizable for whoever asks; so a view that is read once costs one message.
type request struct {
	Partition uint16 `cbor:"1,keyasint,omitempty"`
	View      uint64 `cbor:"2,keyasint,omitempty"`
	Op        kind   `cbor:"3,keyasint"`
	Key       []byte `cbor:"4,keyasint,omitempty"` // of a get; start of a scan
	End       []byte `cbor:"5,keyasint,omitempty"`
	Open      bool   `cbor:"6,keyasint,omitempty"` // the scan has no end
	Reverse   bool   `cbor:"7,keyasint,omitempty"`
	Limit     int    `cbor:"8,keyasint,omitempty"` // entries
}

type pair struct {
	_     struct{} `cbor:",toarray"`
	Key   []byte
	Value []byte
}

type answer struct {
	View  uint64 `cbor:"1,keyasint,omitempty"`
	Found bool   `cbor:"2,keyasint,omitempty"`
	Value []byte `cbor:"3,keyasint,omitempty"`
	Pairs []pair `cbor:"4,keyasint,omitempty"`
	More  bool   `cbor:"5,keyasint,omitempty"` // the scan goes on behind the last pair
}

func encode(v any) ([]byte, error) { return cbor.Marshal(v) }

func decode(data []byte, into any) error {
	if err := cbor.Unmarshal(data, into); err != nil {
		return fmt.Errorf("a message about a view cannot be read: %w", err)
	}
	return nil
}
