package fs

import (
	"fmt"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// nobody is the id under which a mount shows ids that its map does not name.
const nobody = 65534

// IDRange maps Count ids from Local on to those from Stored on.
type IDRange struct{ Local, Stored, Count uint32 }

// IDMap maps the ids of this machine to those in the cluster. The empty map
// changes nothing. In another one, a stored id that no range names is shown as
// nobody (65534), and a local one cannot be stored (EINVAL, as in an
// ID-mapped mount).
type IDMap []IDRange

func (m IDMap) validate(what string) error {
	for i, r := range m {
		if r.Count == 0 || uint64(r.Local)+uint64(r.Count) > 1<<32 || uint64(r.Stored)+uint64(r.Count) > 1<<32 {
			return object.Errorf(object.KindInvalid, "%s map: range %d (%+v) is empty or leaves 32 bits", what, i, r)
		}
		for _, q := range m[:i] {
			if overlap(r.Local, q.Local, r.Count, q.Count) || overlap(r.Stored, q.Stored, r.Count, q.Count) {
				return object.Errorf(object.KindInvalid, "%s map: ranges %s and %s overlap", what, fmt.Sprint(q), fmt.Sprint(r))
			}
		}
	}
	return nil
}

func overlap(a, b, na, nb uint32) bool {
	return uint64(a) < uint64(b)+uint64(nb) && uint64(b) < uint64(a)+uint64(na)
}

// local is the id shown for a stored one.
func (m IDMap) local(id uint32) uint32 {
	if len(m) == 0 {
		return id
	}
	for _, r := range m {
		if id >= r.Stored && id-r.Stored < r.Count {
			return r.Local + (id - r.Stored)
		}
	}
	return nobody
}

// stored is the id to keep for a local one; false: there is none.
func (m IDMap) stored(id uint32) (uint32, bool) {
	if len(m) == 0 {
		return id, true
	}
	for _, r := range m {
		if id >= r.Local && id-r.Local < r.Count {
			return r.Stored + (id - r.Local), true
		}
	}
	return 0, false
}
