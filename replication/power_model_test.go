package replication

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// powerModel is what a client's directory holds.
type powerModel struct {
	dirs  map[string]bool
	files map[string]*powerFile
}

// powerFile is a file; two names of one file share it.
type powerFile struct {
	data  []byte
	xattr string
	mode  uint32
}

func (m *powerModel) clone() *powerModel {
	out := &powerModel{dirs: maps.Clone(m.dirs), files: map[string]*powerFile{}}
	twin := map[*powerFile]*powerFile{}
	for name, f := range m.files {
		if twin[f] == nil {
			twin[f] = &powerFile{slices.Clone(f.data), f.xattr, f.mode}
		}
		out.files[name] = twin[f]
	}
	return out
}

// write puts bytes at an offset, growing the file.
func (f *powerFile) write(off int, b []byte) {
	if need := off + len(b); need > len(f.data) {
		f.data = resized(f.data, need)
	}
	copy(f.data[off:], b)
}

// moveDir renames a directory with what is under it.
func (m *powerModel) moveDir(from, to string) {
	for _, d := range slices.Collect(maps.Keys(m.dirs)) {
		if rest, ok := strings.CutPrefix(d+"/", from+"/"); ok {
			delete(m.dirs, d)
			m.dirs[strings.TrimSuffix(to+"/"+rest, "/")] = true
		}
	}
	for _, name := range slices.Collect(maps.Keys(m.files)) {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			m.files[to+"/"+rest] = m.files[name]
			delete(m.files, name)
		}
	}
}

// String is one line for each name, in order.
func (m *powerModel) String() string {
	if m == nil {
		return "(nothing was under way)"
	}
	var b strings.Builder
	for _, d := range slices.Sorted(maps.Keys(m.dirs)) {
		fmt.Fprintf(&b, "%s/\n", d)
	}
	first := map[*powerFile]string{}
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		f := m.files[name]
		if first[f] == "" {
			first[f] = name
		}
		fmt.Fprintf(&b, "%s = %s: %d bytes %.4x, mode %o, xattr %q\n", name, first[f], len(f.data), sha256.Sum256(f.data), f.mode, f.xattr)
	}
	return b.String()
}

// readModel is what a directory really holds. Implicit directories are not
// counted: they are there for what is in them.
func readModel(t *testing.T, n *Node, dir object.InodeID) *powerModel {
	t.Helper()
	m := &powerModel{dirs: map[string]bool{}, files: map[string]*powerFile{}}
	seen := map[object.InodeID]*powerFile{}
	var walk func(dir object.InodeID, prefix string)
	walk = func(dir object.InodeID, prefix string) {
		list, _, err := n.ReadDir(t.Context(), dir, "", 0, true)
		if object.IsKind(err, object.KindStale) && prefix != "" {
			return // an implicit directory that the sweeper just ended
		}
		if err != nil {
			t.Fatalf("listing %q: %v", prefix, err)
		}
		for _, e := range list {
			name := prefix + e.Name
			if e.Attr.IsDir() {
				if !e.Attr.Implicit {
					m.dirs[name] = true
				}
				walk(e.Inode, name+"/")
				continue
			}
			if seen[e.Inode] == nil {
				seen[e.Inode] = &powerFile{[]byte(content(t, n, e.Inode)), string(e.Attr.Xattrs["user.x"]), e.Attr.Mode}
			}
			m.files[name] = seen[e.Inode]
		}
	}
	walk(dir, "")
	return m
}

// powerClient makes changes below a directory of its own, one after another.
type powerClient struct {
	n    *Node
	name string
	root object.InodeID
	// acked is what was acknowledged, next that and what is under way (nil: nothing).
	acked, next *powerModel
}

// do makes one change: to the model, and for real.
func (c *powerClient) do(apply func(m *powerModel), run func() error) error {
	c.next = c.acked.clone()
	apply(c.next)
	if err := run(); err != nil {
		return err
	}
	c.acked, c.next = c.next, nil
	return nil
}

// verify compares the client's directory with what it may hold.
func (c *powerClient) verify(t *testing.T, n *Node) {
	t.Helper()
	if c.acked == nil {
		return // its directory was not acknowledged
	}
	ino, err := n.Resolve(t.Context(), "box", c.name)
	if err != nil {
		t.Fatalf("the directory of %s: %v", c.name, err)
	}
	if got := readModel(t, n, ino.ID).String(); got != c.acked.String() && (c.next == nil || got != c.next.String()) {
		t.Fatalf("%s holds\n%s\nacknowledged was\n%s\nand under way\n%s", c.name, got, c.acked, c.next)
	}
}

// begin makes the client's directory.
func (c *powerClient) begin(ctx context.Context, n *Node) error {
	root, err := n.Resolve(ctx, "box", "")
	if err != nil {
		return err
	}
	ino, _, err := n.Create(ctx, root.ID, c.name, NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
	if err == nil {
		c.root, c.acked = ino.ID, &powerModel{dirs: map[string]bool{}, files: map[string]*powerFile{}}
	}
	return err
}

// run makes changes in order until one fails.
func (c *powerClient) run(ctx context.Context, n *Node, steps []func(ctx context.Context) error) error {
	c.n = n
	for i, step := range steps {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%s, step %d: %w", c.name, i, errors.Join(err, ctx.Err()))
		}
	}
	return nil
}
