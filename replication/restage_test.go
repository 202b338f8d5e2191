package replication

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// perforate makes a file of count pieces of one byte, every second byte from
// the third on, and returns its content.
func perforate(t *testing.T, n *Node, dir object.InodeID, name string, count int) (*object.Inode, []byte) {
	t.Helper()
	f := newFile(t, n, dir, name, "xy")
	model := append([]byte("xy"), make([]byte, 2*count)...)
	for done := 0; done < count; {
		sp := &namespace.Splice{Inode: f.ID, Offset: 2 + int64(2*done), Grow: true, Content: newContentID()}
		for i := range min(namespace.MaxExtents, count-done) {
			b := byte(1 + (done+i)%250)
			sp.Extents = append(sp.Extents, object.Extent{Offset: int64(2 * i), Length: 1, Data: []byte{b}})
			model[sp.Offset+int64(2*i)] = b
		}
		sp.Length = int64(2 * len(sp.Extents))
		done += len(sp.Extents)
		if _, err := n.do(t.Context(), f.ID.Partition(), &namespace.Command{Splice: sp}); err != nil {
			t.Fatal(err)
		}
	}
	return f, model
}

// inSteps applies a command as one is that would replace more extents than an
// entry may: the file is restaged first.
func inSteps(ctx context.Context, n *Node, cmd *namespace.Command) error {
	part := cmd.Target().Partition()
	if err := n.gather(ctx, part, cmd, &namespace.Result{Failed: true, Scattered: true, Pieces: true}, 0); err != nil {
		return err
	}
	_, err := n.do(ctx, part, cmd)
	return err
}

func cutTo(f *object.Inode, size int64) *namespace.Command {
	return &namespace.Command{SetAttr: &namespace.SetAttr{Inode: f.ID, Size: &size}}
}

func splice(f *object.Inode, sp namespace.Splice) *namespace.Command {
	sp.Inode, sp.Content = f.ID, newContentID()
	sp.Length = max(sp.Length, int64(len(sp.Data)))
	return &namespace.Command{Splice: &sp}
}

func TestFileOfManyPiecesIsCutAndOverwrittenWhole(t *testing.T) {
	n, ctx := nodeOf(t, 1)
	d := mkdirs(t, n, "d")
	const few, many = 700, 17000 // more than one entry may replace
	big := randomBytes(1, 2*many+100)
	for name, c := range map[string]struct {
		pieces int
		change func(f *object.Inode, model []byte) ([]byte, error)
	}{
		"cut": {many, func(f *object.Inode, model []byte) ([]byte, error) {
			to := int64(1001)
			_, err := n.SetAttr(ctx, f.ID, SetAttr{Size: &to})
			return model[:to], err
		}},
		"overwrite": {many, func(f *object.Inode, model []byte) ([]byte, error) {
			_, _, err := n.Write(ctx, f.ID, 0, bytes.NewReader(big), WriteOptions{Size: int64(len(big))})
			return big, err
		}},
		"cut to nothing": {few, func(f *object.Inode, model []byte) ([]byte, error) {
			return nil, inSteps(ctx, n, cutTo(f, 0))
		}},
		"overwrite the middle": {few, func(f *object.Inode, model []byte) ([]byte, error) {
			copy(model[501:], big[:701])
			return model, inSteps(ctx, n, splice(f, namespace.Splice{Offset: 501, Data: big[:701], Grow: true}))
		}},
		"truncating write": {few, func(f *object.Inode, model []byte) ([]byte, error) {
			return append(model[:3:3], "end"...), inSteps(ctx, n, splice(f, namespace.Splice{Offset: 3, Data: []byte("end"), Truncate: true}))
		}},
		"punch": {few, func(f *object.Inode, model []byte) ([]byte, error) {
			clear(model[3 : 2*few-2])
			return model, inSteps(ctx, n, splice(f, namespace.Splice{Offset: 3, Length: 2*few - 5}))
		}},
		"append": {few, func(f *object.Inode, model []byte) ([]byte, error) {
			return append(model, "end"...), inSteps(ctx, n, splice(f, namespace.Splice{Append: true, Data: []byte("end"), Grow: true}))
		}},
	} {
		f, model := perforate(t, n, d, name, c.pieces)
		old := bytes.Clone(model)
		r, err := n.OpenInode(ctx, f.ID)
		if err != nil {
			t.Fatal(err)
		}
		want, err := c.change(f, model)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := content(t, n, f.ID); got != string(want) {
			t.Fatalf("%s: the content differs afterwards (%d and %d bytes)", name, len(got), len(want))
		}
		if !bytes.Equal(readAll(t, r), old) {
			t.Fatalf("%s: an open reader saw the change", name)
		}
		r.Close()
		if err := n.Unlink(ctx, d, name); err != nil {
			t.Fatal(err)
		}
	}
	if r := checkAtRest(t, n); r.Extents != 0 {
		t.Fatalf("%d extents are left", r.Extents)
	}
}

// Whoever vanishes at any entry of it leaves the old content or the new one.
func TestCrashWhileAFileOfManyPiecesIsCut(t *testing.T) {
	n, ctx := nodeOf(t, 1)
	d := mkdirs(t, n, "d")
	f, model := perforate(t, n, d, "f", 2000)
	entries := 0
	for crashAt, size := 1, int64(3000); ; crashAt++ {
		var count atomic.Int32
		step := func(object.PartitionID) error {
			if int(count.Add(1)) >= crashAt {
				return errCrash
			}
			return nil
		}
		n.step.Store(&step)
		err := inSteps(ctx, n, cutTo(f, size))
		n.step.Store(nil)
		switch got := content(t, n, f.ID); {
		case err == nil && got != string(model[:size]), err != nil && got != string(model):
			t.Fatalf("crash at %d, %v: the content is neither the old nor the new one", crashAt, err)
		}
		if err := n.dropStaged(nobody); err != nil { // as the next incarnation does
			t.Fatal(err)
		}
		if err == nil {
			entries = crashAt
			break
		}
	}
	if entries < 8 {
		t.Fatalf("%d entries: it was not done in steps", entries)
	}
	if r := checkAtRest(t, n); r.Extents > 1600 {
		t.Fatalf("%d extents are left", r.Extents)
	}
}

// What others write meanwhile, in front of the cut, is not lost.
func TestWritersWhileAFileOfManyPiecesIsCut(t *testing.T) {
	n, ctx := nodeOf(t, 1)
	d := mkdirs(t, n, "d")
	f, model := perforate(t, n, d, "f", 2000)
	stop, size := make(chan struct{}), int64(600)
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for i := w; i < int(size); i += 2 {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := n.Write(context.Background(), f.ID, int64(i), bytes.NewReader([]byte("w")), WriteOptions{Size: 1}); err != nil {
					t.Error(fmt.Errorf("write: %w", err))
				}
				model[i] = 'w'
			}
		}()
	}
	err := inSteps(ctx, n, cutTo(f, size))
	for err != nil && object.IsKind(err, object.KindConflict) { // changed all the time: it says so
		err = inSteps(ctx, n, cutTo(f, size))
	}
	close(stop)
	writers.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, n, f.ID); got != string(model[:size]) {
		t.Fatal("the content differs")
	}
	checkAtRest(t, n)
}
