package control

import (
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// format is the first byte of every record; CBOR follows. A field may be added
// without another format; another meaning needs one.
const format = 1

// codec is CBOR (RFC 8949) with integer keys, sorted: equal values give equal bytes.
var codec = func() (c struct {
	enc cbor.EncMode
	dec cbor.DecMode
}) {
	var err error
	if c.enc, err = (cbor.EncOptions{Sort: cbor.SortBytewiseLexical}).EncMode(); err != nil {
		panic(err) // the options are constant
	}
	if c.dec, err = (cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF}).DecMode(); err != nil {
		panic(err)
	}
	return c
}()

func encode(v any) ([]byte, error) {
	b, err := codec.enc.Marshal(v)
	return append([]byte{format}, b...), err
}

func decode(what string, b []byte, v any) error {
	if len(b) == 0 {
		return damaged(what, "it is empty")
	}
	if b[0] != format {
		return object.Errorf(object.KindVersion, "the control state's %s has format %d, this program knows %d: upgrade this node", what, b[0], format)
	}
	if err := codec.dec.Unmarshal(b[1:], v); err != nil {
		return damaged(what, "%w", err)
	}
	return nil
}

// damaged is a record that no version of this program wrote.
func damaged(what, format string, args ...any) error {
	return object.Errorf(object.KindCorrupt, "the control state's "+what+" is damaged: "+format, args...)
}

func decodeNode(id NodeID, b []byte) (*Node, error) {
	n := &Node{}
	if err := decode("node", b, n); err != nil {
		return nil, err
	}
	if n.ID = id; !validID(id) || n.Life != NodeJoining && n.Life != NodeUp && n.Life != NodeRemoved || len(n.Past) > pastKept {
		return nil, damaged("node", "node %q of life %d", id, n.Life)
	}
	return n, nil
}

func decodePartition(id object.PartitionID, b []byte) (*Partition, error) {
	p := &Partition{}
	if err := decode("partition", b, p); err != nil {
		return nil, err
	}
	p.ID = id
	for i := range p.Replicas {
		r := &p.Replicas[i]
		if r.State < Joining || r.State >= Destroyed || r.Was > Destroyed || !validID(r.ID.Node) || p.find(r.ID) != r {
			return nil, damaged("partition", "replica %q of partition %d, %s", r.ID, id, r.State)
		}
	}
	return p, nil
}

func decodeHeader(b []byte) (*Header, error) {
	h := &Header{}
	if err := decode("header", b, h); err != nil {
		return nil, err
	}
	if h.Partitions < 1 || h.Partitions > placement.MaxPartitions || h.Groups < 1 || h.Groups > placement.MaxGroups || h.Inputs > h.Epoch || h.Planned > h.Epoch {
		return nil, damaged("header", "%d partitions, %d groups, epoch %d", h.Partitions, h.Groups, h.Epoch)
	}
	return h, nil
}

func decodeSettings(b []byte) (*Settings, error) {
	s := &Settings{}
	if err := decode("settings", b, s); err != nil {
		return nil, err
	}
	if err := s.Validate(); err != nil {
		return nil, damaged("settings", "%w", err)
	}
	return s, nil
}

// targetRecord is a Target as stored, and as a Plan carries it.
type targetRecord struct {
	Data   []byte   `cbor:"1,keyasint"` // placement.Map
	Voters []NodeID `cbor:"2,keyasint"`
}

func (t *Target) encode() ([]byte, error) {
	data, err := t.Data.Encode()
	if err != nil {
		return nil, err
	}
	return encode(targetRecord{Data: data, Voters: t.Voters})
}

func decodeTarget(b []byte) (*Target, error) {
	var r targetRecord
	if err := decode("plan", b, &r); err != nil {
		return nil, err
	}
	data, err := placement.DecodeMap(r.Data)
	if err != nil {
		return nil, err
	}
	for i, id := range r.Voters {
		if !validID(id) || slices.Contains(r.Voters[:i], id) || i >= MaxVoters {
			return nil, damaged("plan", "voters %q", r.Voters)
		}
	}
	return &Target{Data: data, Voters: r.Voters}, nil
}

// layoutRecord is a Layout as stored.
type layoutRecord struct {
	Layout  []byte `cbor:"1,keyasint"`
	Schemes []int  `cbor:"2,keyasint"`
	Copying []int  `cbor:"3,keyasint,omitempty"` // ascending
	Target  []byte `cbor:"4,keyasint"`           // slots, see encodeSlots
}

func (l *Layout) encode() (b []byte, err error) {
	r := layoutRecord{Schemes: l.Schemes}
	if r.Layout, err = l.Layout.Encode(); err != nil {
		return nil, err
	}
	if r.Target, err = encodeSlots(l.Width, l.Target); err != nil {
		return nil, err
	}
	r.Copying = slices.Sorted(maps.Keys(l.Copying))
	return encode(r)
}

func decodeLayout(b []byte) (*Layout, error) {
	var r layoutRecord
	if err := decode("layout", b, &r); err != nil {
		return nil, err
	}
	now, err := placement.DecodeLayout(r.Layout)
	if err != nil {
		return nil, err
	}
	l := &Layout{Layout: now, Schemes: r.Schemes, Copying: map[int]bool{}}
	if l.Target, err = decodeSlots(now.Width, r.Target); err != nil {
		return nil, err
	}
	if len(l.Target) != len(l.Groups) || len(l.Schemes) == 0 {
		return nil, damaged("layout", "%d groups, %d planned, %d schemes", len(l.Groups), len(l.Target), len(l.Schemes))
	}
	for i, k := range l.Schemes {
		if k < 0 || k > 0 && k >= l.Width || i > 0 && l.Schemes[i-1] >= k {
			return nil, damaged("layout", "schemes %v of width %d", l.Schemes, l.Width)
		}
	}
	for _, group := range r.Copying {
		if group < 0 || group >= len(l.Groups) || l.Groups[group].Next == nil {
			return nil, damaged("layout", "the copying of group %d", group)
		}
		l.Copying[group] = true
	}
	return l, nil
}

// encodeSlots packs the slots of groups as a layout without epochs.
func encodeSlots(width int, slots [][]NodeID) ([]byte, error) {
	l := &placement.Layout{Width: width, Groups: make([]placement.Group, len(slots))}
	for i := range slots {
		l.Groups[i].Holders = slots[i]
	}
	return l.Encode()
}

// decodeSlots reads what encodeSlots wrote, for the same width.
func decodeSlots(width int, b []byte) ([][]NodeID, error) {
	l, err := placement.DecodeLayout(b)
	if err != nil {
		return nil, err
	}
	if l.Width != width {
		return nil, damaged("layout", "a plan of %d slots for %d", l.Width, width)
	}
	slots := make([][]NodeID, len(l.Groups))
	for i, g := range l.Groups {
		slots[i] = g.Holders
	}
	return slots, nil
}
