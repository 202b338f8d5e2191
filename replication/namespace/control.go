package namespace

import (
	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Partition 0 also keeps the control state. What is in it is package control's;
// its records have key letters of their own.

// control applies a command of package control.
func (s *state) control(data []byte) *Result {
	if s.part != object.Control {
		return failf(object.KindInvalid, "partition %d keeps no control state", s.part)
	}
	c, err := control.DecodeCommand(data)
	if err != nil {
		return failf(object.KindOf(err), "%s", err)
	}
	if s.err != nil {
		return &Result{} // given up anyway
	}
	r, err := control.Apply(s.txn, c)
	if err != nil {
		s.fail(err)
		return &Result{}
	}
	s.controlled = s.controlled || !r.Failed
	return &Result{Failed: r.Failed, Kind: r.Kind, Message: r.Message, Control: r}
}

// Control is the control state; KindNotFound where no cluster was ever
// bootstrapped. Of a view of partition 0.
func (v *View) Control() (*control.State, error) { return control.Load(v.snap) }
