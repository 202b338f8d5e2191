package namespace

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The locks of one inode, as a list in the order of lockOrder; no two of one owner and
// class have a byte in common, and two that touch are of different types. These functions
// are pure.

func lockOrder(a, b object.Lock) int {
	return cmp.Or(cmp.Compare(a.Class, b.Class), bytes.Compare(a.Session[:], b.Session[:]), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.First, b.First))
}

// inTheWay is one of the locks that conflict with l: the one that begins first, and of
// those the first in order; nil when there is none.
func inTheWay(list []object.Lock, l *object.Lock) (first *object.Lock) {
	for i := range list {
		if o := &list[i]; o.Conflicts(l) && (first == nil || o.First < first.First) {
			first = o
		}
	}
	return first
}

// unlocked is the list without what the owner of l has in l's range, and whether that was
// anything. A lock that reaches over an end of the range is cut, one that reaches over
// both becomes two.
func unlocked(list []object.Lock, l *object.Lock) (out []object.Lock, some bool) {
	out = make([]object.Lock, 0, len(list)+2)
	for _, o := range list {
		if !o.Mine(l) || !o.Meets(l) {
			out = append(out, o)
			continue
		}
		some = true
		if o.First < l.First {
			left := o
			left.Last = l.First - 1
			out = append(out, left)
		}
		if o.Last > l.Last { // so l.Last+1 is a byte
			right := o
			right.First = l.Last + 1
			out = append(out, right)
		}
	}
	slices.SortFunc(out, lockOrder)
	return out, some
}

// locked is the list with l in place of what its owner has in its range, joined with the
// locks of its type that touch it.
func locked(list []object.Lock, l *object.Lock) []object.Lock {
	rest, _ := unlocked(list, l)
	joined := *l
	out := rest[:0]
	for _, o := range rest {
		switch {
		case !o.Mine(l) || o.Exclusive != l.Exclusive:
			out = append(out, o)
		case l.First > 0 && o.Last == l.First-1:
			joined.First = o.First
		case l.Last < object.LastByte && o.First == l.Last+1:
			joined.Last = o.Last
		default:
			out = append(out, o)
		}
	}
	out = append(out, joined)
	slices.SortFunc(out, lockOrder)
	return out
}
