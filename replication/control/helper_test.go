package control

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// memory is a Txn in memory.
type memory map[string][]byte

func (m memory) Get(key []byte) ([]byte, bool, error) {
	v, ok := m[string(key)]
	return v, ok, nil
}

func (m memory) Ascend(start, end []byte, fn func(k, v []byte) (bool, error)) error {
	var keys []string
	for k := range m {
		if k >= string(start) && (end == nil || k < string(end)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if more, err := fn([]byte(k), m[k]); err != nil || !more {
			return err
		}
	}
	return nil
}

func (m memory) Set(key, value []byte) error {
	m[string(key)] = bytes.Clone(value)
	return nil
}

func (m memory) Delete(key []byte) error {
	delete(m, string(key))
	return nil
}

// fataler is what helpers need of a *testing.T or *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func apply(t fataler, txn Txn, c *Command) *Result {
	t.Helper()
	b, err := c.Encode()
	if err != nil {
		t.Fatalf("%v", err)
	}
	back, err := DecodeCommand(b)
	if err != nil {
		t.Fatalf("%v", err)
	}
	r, err := Apply(txn, back)
	if err != nil {
		t.Fatalf("applying %+v: %v", c, err)
	}
	return r
}

func must(t fataler, txn Txn, c *Command) *Result {
	t.Helper()
	r := apply(t, txn, c)
	if r.Failed {
		t.Fatalf("%+v: %v", c, r.Err())
	}
	return r
}

func mustFail(t fataler, txn Txn, kind object.Kind, c *Command) {
	t.Helper()
	before := loaded(t, txn)
	if r := apply(t, txn, c); !r.Failed || r.Kind != kind {
		t.Fatalf("%+v: %v, not %v", c, r.Err(), kind)
	}
	if after := loaded(t, txn); before.Epoch != after.Epoch {
		t.Fatalf("a refused command changed the epoch")
	}
}

func loaded(t fataler, r Reader) *State {
	t.Helper()
	s, err := Load(r)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

func joinOf(id NodeID, store byte) *Join {
	return &Join{
		Node: id, Store: StoreID{store}, Incarnation: Incarnation{store, 1}, API: string(id) + ":9080", Peer: string(id) + ":9080",
		Zone: "z", Weight: 1, Versions: Versions{1, 1},
	}
}

func bootstrapOf(id NodeID, partitions, groups int) *Command {
	return &Command{Bootstrap: &Bootstrap{Cluster: ClusterID{7}, Node: *joinOf(id, 1), Partitions: partitions, Groups: groups, Settings: DefaultSettings()}}
}

func nodeName(i int) NodeID { return NodeID(fmt.Sprintf("n%d", i)) }

// kind names a command, and the step that it is.
func kind(c *Command) string {
	switch {
	case c.Step != nil:
		return "step to " + c.Step.To.String()
	case c.Advance != nil:
		return fmt.Sprintf("group step %d", c.Advance.To)
	}
	name, _, _ := strings.Cut(text(c), "{")
	return name
}

// text is a command for a trace.
func text(c *Command) string {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsNil() {
			return fmt.Sprintf("%s%+v", v.Type().Field(i).Name, f.Elem())
		}
	}
	return "nothing"
}
