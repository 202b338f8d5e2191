package replication

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// eventually is waitFor for what takes a cluster some rounds; it shows what it waits for.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for %s: %v", what, err)
		}
	}
}

// placed waits until every chunk group is where the plan has it, on so many nodes.
func placed(t testing.TB, n *Node, holders int, nodes ...*Node) *control.State {
	t.Helper()
	var s *control.State
	eventually(t, "the chunk groups at their places", func() (err error) {
		if s, err = n.Control(t.Context()); err != nil {
			return err
		}
		if s.Planned < s.Inputs {
			return fmt.Errorf("no plan yet")
		}
		for _, l := range s.Layouts {
			for i, g := range l.Groups {
				if g.Next != nil || !slices.Equal(g.Holders, l.Target[i]) {
					return fmt.Errorf("group %d is on %q, going to %q, planned %q", i, g.Holders, g.Next, l.Target[i])
				}
				if have := len(g.Holders) - count(g.Holders, placement.None); have != holders {
					return fmt.Errorf("group %d is on %q", i, g.Holders)
				}
			}
		}
		for _, x := range nodes {
			if x.adopted() < s.Epoch {
				return fmt.Errorf("%s has adopted epoch %d of %d", x.cfg.NodeID, x.adopted(), s.Epoch)
			}
			if !slices.ContainsFunc(s.Layout(3).Groups, func(g placement.Group) bool { return slices.Contains(g.Holders, placement.NodeID(x.cfg.NodeID)) }) {
				return fmt.Errorf("%s holds nothing", x.cfg.NodeID)
			}
		}
		return nil
	})
	return s
}

func count(list []placement.NodeID, id placement.NodeID) (n int) {
	for _, x := range list {
		if x == id {
			n++
		}
	}
	return n
}

// liveChunks are all that the owners have.
func liveChunks(t testing.TB, n *Node) (list []namespace.ChunkRef) {
	t.Helper()
	for id := range n.ids(firstData) {
		if err := n.inView(t.Context(), id, func(v *namespace.View) error {
			some, err := v.Chunks(object.ChunkID{}, 1<<20)
			list = append(list, some...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// missingAt says which copies of live chunks are not at their holders, whole.
func missingAt(list []namespace.ChunkRef, places *places, nodes []*Node) error {
	for _, c := range list {
		site, err := places.locate(c.ID, copies.SchemeOf(c.Scheme))
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if site.Shard(placement.NodeID(n.cfg.NodeID)) < 0 {
				continue
			}
			if _, err := n.chunks.ReadAll(context.Background(), c.ID, [32]byte(c.SHA256)); err != nil {
				return fmt.Errorf("chunk %v at %s: %w", c.ID, n.cfg.NodeID, err)
			}
		}
	}
	return nil
}

// complete waits until every holder has its copy of every live chunk, byte for byte.
func complete(t testing.TB, nodes []*Node) []namespace.ChunkRef {
	t.Helper()
	list := liveChunks(t, nodes[0])
	if len(list) == 0 {
		t.Fatal("no chunks at all")
	}
	eventually(t, "all chunks at their holders", func() error { return missingAt(list, nodes[0].places, nodes) })
	return list
}

// objects are what a test wrote, by key.
type objects map[string]string

func (o objects) put(t testing.TB, n *Node, key string, size int) {
	t.Helper()
	b := strings.Repeat(key+"|", size/len(key)+1)[:size]
	if _, err := n.Put(t.Context(), "box", key, strings.NewReader(b), PutOptions{Size: int64(size)}); err != nil {
		t.Fatalf("%s at %s: %v", key, n.cfg.NodeID, err)
	}
	o[key] = b
}

func (o objects) check(t testing.TB, n *Node) {
	t.Helper()
	for key, want := range o {
		r, err := n.OpenObject(t.Context(), "box", key)
		if err != nil {
			t.Fatalf("%s at %s: %v", key, n.cfg.NodeID, err)
		}
		var b bytes.Buffer
		err = r.WriteRange(t.Context(), &b, 0, r.Inode().Size)
		r.Close()
		if err != nil || b.String() != want {
			t.Fatalf("%s at %s has %d bytes of %d, or others: %v", key, n.cfg.NodeID, b.Len(), len(want), err)
		}
	}
}

// TestChunksMove: what a node wrote alone, and what is written while others join, ends at
// all three holders; then any one of them may be lost.
func TestChunksMove(t *testing.T) {
	first := joinNode(t, nil, "n1")
	if _, err := first.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	wrote := objects{}
	for i := range 20 {
		wrote.put(t, first, fmt.Sprintf("alone/%d", i), 150_000)
	}
	nodes := []*Node{first}
	for _, id := range []string{"n2", "n3"} {
		nodes = append(nodes, joinNode(t, first, id))
		for i := range 10 {
			wrote.put(t, nodes[i%len(nodes)], fmt.Sprintf("while %s joins/%d", id, i), 150_000)
		}
	}
	placed(t, first, 3, nodes...)
	for i := range 10 {
		wrote.put(t, nodes[i%3], fmt.Sprintf("after/%d", i), 150_000)
	}
	list := complete(t, nodes)
	for _, n := range nodes {
		for _, c := range list {
			if ok, err := n.chunks.Has(c.ID); err != nil || !ok {
				t.Fatalf("%v is not at %s: %v", c.ID, n.cfg.NodeID, err)
			}
		}
		wrote.check(t, n)
	}
	settled(t, first)
	// The founder had all of it alone; now it goes.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[1:] {
		wrote.check(t, n)
	}
	wrote.put(t, nodes[2], "without the founder", 150_000)
	wrote.check(t, nodes[1])
}

// trioOf is three nodes with every chunk group at its place, and count objects of some chunks.
func trioOf(t *testing.T, objects objects, count int) []*Node {
	t.Helper()
	first := joinNode(t, nil, "n1")
	if _, err := first.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	nodes := []*Node{first, joinNode(t, first, "n2"), joinNode(t, first, "n3")}
	placed(t, first, 3, nodes...)
	for i := range count {
		objects.put(t, nodes[i%3], fmt.Sprintf("first/%d", i), 150_000)
	}
	complete(t, nodes)
	settled(t, first)
	return nodes
}

// TestFourthNode joins under load: no operation fails, what moves is what has to move,
// and who holds a chunk no more drops it.
func TestFourthNode(t *testing.T) {
	wrote := objects{}
	trio := trioOf(t, wrote, need.Size(40, 400))
	before := fetched(trio)
	ctx, stop := context.WithCancel(t.Context())
	load, lctx := errgroup.WithContext(ctx)
	added := make([]objects, len(trio))
	for w, n := range trio {
		added[w] = objects{}
		load.Go(func() error {
			for i := 0; ctx.Err() == nil; i++ {
				key, b := fmt.Sprintf("load/%d/%d", w, i), strings.Repeat(fmt.Sprint(w, i), 20_000)
				if _, err := n.Put(lctx, "box", key, strings.NewReader(b), PutOptions{Size: int64(len(b))}); err != nil {
					if ctx.Err() != nil {
						return nil
					}
					return fmt.Errorf("put %s: %w", key, err)
				}
				added[w][key] = b
				if err := readBack(lctx, trio[(w+1)%3], key, b); err != nil && ctx.Err() == nil {
					return fmt.Errorf("get %s: %w", key, err)
				}
			}
			return nil
		})
	}
	fourth := joinNode(t, trio[0], "n4")
	nodes := append(slices.Clone(trio), fourth) // the load reads the other
	placed(t, nodes[0], 3, nodes...)
	stop()
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	list := complete(t, nodes)
	moved, least := fetched(nodes)-before, int64(0)
	for _, c := range list {
		if site, err := fourth.places.locate(c.ID, copies.SchemeOf(c.Scheme)); err != nil {
			t.Fatal(err)
		} else if site.Shard("n4") >= 0 {
			least += c.Length
		}
	}
	if least == 0 || float64(moved) > 1.2*float64(least) {
		t.Fatalf("%d bytes moved, %d have to be at the fourth node", moved, least)
	}
	t.Logf("%d chunks, %d bytes moved of %d that are at the fourth node", len(list), moved, least)
	eventually(t, "nobody to keep what is not his", func() error {
		for _, n := range nodes {
			if left, err := n.dropMoved(t.Context()); left || err != nil {
				return fmt.Errorf("%s keeps some: %v", n.cfg.NodeID, err)
			}
		}
		for _, c := range list {
			have := 0
			for _, n := range nodes {
				if ok, err := n.chunks.Has(c.ID); err != nil {
					return err
				} else if ok {
					have++
				}
			}
			if have != 3 {
				return fmt.Errorf("chunk %v is at %d nodes", c.ID, have)
			}
		}
		return nil
	})
	checkDrop(t, nodes, list[0])
	settledOn(t, fourth)
	checkRanges(t, nodes)
	for _, more := range append(added, wrote) {
		more.check(t, fourth)
	}
}

// checkDrop: a copy that is at no holder of its chunk stays until a quorum of the
// holders has good ones.
func checkDrop(t *testing.T, nodes []*Node, c namespace.ChunkRef) {
	t.Helper()
	var in []*Node
	var out *Node
	for _, n := range nodes {
		if n.holdsNow(placement.NodeID(n.cfg.NodeID), c) {
			in = append(in, n)
		} else {
			out = n
		}
	}
	data, err := in[0].chunks.ReadAll(t.Context(), c.ID, [32]byte(c.SHA256))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.chunks.Put(t.Context(), c.ID, data); err != nil {
		t.Fatal(err)
	}
	if err := in[0].chunks.Delete(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	damageFile(t, in[1], c.ID) // one of three is good now
	if _, err := out.dropMoved(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := out.chunks.Has(c.ID); err != nil || !ok {
		t.Fatalf("a copy was dropped of which one holder has another: %v", err)
	}
	if left, err := in[0].compare(t.Context()); left || err != nil {
		t.Fatalf("left %v, %v", left, err)
	}
	eventually(t, "the drop, now that two have it", func() error {
		left, err := out.dropMoved(t.Context())
		if ok, _ := out.chunks.Has(c.ID); ok || left || err != nil {
			return fmt.Errorf("there %v, left %v: %v", ok, left, err)
		}
		return nil
	})
	eventually(t, "the damaged copy whole again", func() error { return missingAt([]namespace.ChunkRef{c}, out.places, nodes) })
	checkPush(t, in, out, c, data)
}

// checkPush: the last good copy of a chunk is at a node that holds it no longer, and comes back
// to those that do before it goes there.
func checkPush(t *testing.T, in []*Node, out *Node, c namespace.ChunkRef, data []byte) {
	t.Helper()
	if _, err := out.chunks.Put(t.Context(), c.ID, data); err != nil {
		t.Fatal(err)
	}
	for _, n := range in {
		if err := n.chunks.Delete(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the drop, after the chunk was brought to its holders", func() error {
		left, err := out.dropMoved(t.Context())
		if ok, _ := out.chunks.Has(c.ID); ok || left || err != nil {
			return fmt.Errorf("there %v, left %v: %v", ok, left, err)
		}
		return nil
	})
	good := 0
	for _, n := range in {
		if got, err := n.chunks.ReadAll(t.Context(), c.ID, [32]byte(c.SHA256)); err == nil && bytes.Equal(got, data) {
			good++
		}
	}
	if good < 2 {
		t.Errorf("%d of %d holders have it", good, len(in))
	}
}

// settledOn waits until every partition is where the plan has it.
func settledOn(t testing.TB, n *Node) {
	t.Helper()
	eventually(t, "the partitions at their places", func() error {
		s, err := n.Control(t.Context())
		if err != nil {
			return err
		}
		for _, p := range s.Partitions {
			for _, r := range p.Replicas {
				if r.State != control.InForce || !slices.Contains(s.Target.Of(p.ID), r.ID.Node) {
					return fmt.Errorf("partition %d: %v", p.ID, p.Replicas)
				}
			}
		}
		return nil
	})
}

// fetched is how much the nodes got from others to mend and to move chunks.
func fetched(nodes []*Node) (total int64) {
	for _, n := range nodes {
		total += n.ChunkStatus().RepairedBytes
	}
	return total
}

// readBack compares an object with what it has to be.
func readBack(ctx context.Context, n *Node, key, want string) error {
	r, err := n.OpenObject(ctx, "box", key)
	if err != nil {
		return err
	}
	defer r.Close()
	var b bytes.Buffer
	if err := r.WriteRange(ctx, &b, 0, r.Inode().Size); err != nil {
		return err
	}
	if b.String() != want {
		return fmt.Errorf("%d bytes of %d, or others", b.Len(), len(want))
	}
	return nil
}

// TestGoneNodeReplaced: a node that is gone longer than GoneAfter is replaced by an
// empty one, and the chunks are three times there again.
func TestGoneNodeReplaced(t *testing.T) {
	wrote := objects{}
	nodes := trioOf(t, wrote, need.Size(30, 300))
	if err := nodes[2].Close(); err != nil {
		t.Fatal(err)
	}
	wrote.put(t, nodes[0], "while one is away", 150_000)
	s, err := nodes[0].Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set := s.Settings
	set.GoneAfter = 3 * time.Second
	if r, err := nodes[0].propose0(t.Context(), &control.Command{Configure: &set}); err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	nodes[2] = joinNode(t, nodes[0], "n4")
	eventually(t, "the groups without the node that is gone", func() error {
		s := placed(t, nodes[0], 3, nodes...)
		for _, l := range s.Layouts {
			for i, g := range l.Groups {
				if holds(g, "n3") {
					return fmt.Errorf("group %d is on %q", i, g.Holders)
				}
			}
		}
		return nil
	})
	complete(t, nodes)
	wrote.check(t, nodes[2])
	// As long as it is on record it counts for the control group's majority.
	eventually(t, "the removal of the node that is gone", func() error {
		r, err := nodes[0].propose0(t.Context(), &control.Command{Remove: &control.Remove{Node: "n3"}})
		if err != nil {
			return err
		}
		return r.Err()
	})
	eventually(t, "the partitions on the three that are left", func() error {
		s, err := nodes[0].Control(t.Context())
		if err != nil {
			return err
		}
		for _, p := range s.Partitions {
			good := 0
			for _, r := range p.Replicas {
				if r.State == control.InForce && r.ID.Node != "n3" {
					good++
				}
			}
			if good != 3 || len(p.Replicas) != 3 {
				return fmt.Errorf("partition %d: %v", p.ID, p.Replicas)
			}
		}
		return nil
	})
	if err := nodes[1].Close(); err != nil { // the new one is as good as any
		t.Fatal(err)
	}
	wrote.check(t, nodes[2])
}

// TestCorruptFilesRepaired damages chunk files of one node at random places: the
// scrub finds every one, and they come back whole from the others.
func TestCorruptFilesRepaired(t *testing.T) {
	wrote := objects{}
	nodes := trioOf(t, wrote, need.Size(40, 700))
	list := liveChunks(t, nodes[0])
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	list = list[:min(len(list), need.Size(60, 1000))]
	for _, c := range list {
		damageFile(t, nodes[1], c.ID)
	}
	if err := missingAt(list[:1], nodes[1].places, nodes[1:2]); err == nil {
		t.Fatal("the damage did nothing")
	}
	if _, bad, err := nodes[1].scrubChunks(t.Context()); err != nil || bad > len(list) { // the node's own, which the first damage began, finds the others
		t.Fatalf("the scrub found %d of %d: %v", bad, len(list), err)
	}
	eventually(t, "the damaged chunks whole again", func() error { return missingAt(list, nodes[1].places, nodes) })
	if st := nodes[1].ChunkStatus(); st.Corrupt < int64(len(list)) || st.Repaired < int64(len(list)) {
		t.Fatalf("%+v after damage to %d chunks", st, len(list))
	}
	wrote.check(t, nodes[1])
}

// damageFile flips a bit somewhere in a chunk's file.
func damageFile(t testing.TB, n *Node, id object.ChunkID) {
	t.Helper()
	path := filepath.Join(n.cfg.StoragePaths[0], "chunks", fmt.Sprintf("%04x", uint16(id.Owner)), fmt.Sprintf("%02x", id.Upload[0]), id.String())
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMissingFilesFound: the comparison fetches what was removed behind the node's back.
func TestMissingFilesFound(t *testing.T) {
	wrote := objects{}
	nodes := trioOf(t, wrote, need.Size(20, 200))
	list := liveChunks(t, nodes[0])
	for i, c := range list {
		if i%2 == 0 {
			if err := nodes[2].chunks.Delete(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left, err := nodes[2].compare(t.Context()); left || err != nil {
		t.Fatalf("left %v, %v", left, err)
	}
	if err := missingAt(list, nodes[2].places, nodes); err != nil {
		t.Fatal(err)
	}
	if st := nodes[2].ChunkStatus(); st.UnderReplicated != 0 || st.Compared == 0 || st.Repaired < int64(len(list)/2) {
		t.Fatalf("%+v", st)
	}
}

// TestMoverStopped: a node that is stopped while chunks come to it goes on where it was.
func TestMoverStopped(t *testing.T) {
	wrote := objects{}
	first := joinNode(t, nil, "n1")
	if _, err := first.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		wrote.put(t, first, fmt.Sprintf("first/%d", i), 150_000)
	}
	cfg := memberConfig(t, "n2")
	cfg.Join, cfg.RepairRate = []string{first.cfg.Peer}, 512<<10 // 6 MB take a dozen seconds
	second := openMember(t, cfg)
	list := liveChunks(t, first)
	have := func() (n int) {
		for _, c := range list {
			if ok, err := second.chunks.Has(c.ID); err == nil && ok {
				n++
			}
		}
		return n
	}
	eventually(t, "some chunks at the second node", func() error {
		if n := have(); n < 10 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.RepairRate, cfg.Join = 0, nil
	second = openMember(t, cfg)
	nodes := []*Node{first, second}
	placed(t, first, 2, nodes...)
	complete(t, nodes)
	var all int64
	for _, c := range list {
		all += c.Length
	}
	if again := second.ChunkStatus().RepairedBytes; again >= all {
		t.Fatalf("%d bytes came after the stop, of %d in all: it began anew", again, all)
	}
	wrote.check(t, second)
}

// TestMoverMemory: a mover has a page of ids in memory at a time, however many chunks move,
// and what it takes over that way is all there is.
func TestMoverMemory(t *testing.T) {
	wrote := objects{}
	first := joinNode(t, nil, "n1")
	if _, err := first.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		wrote.put(t, first, fmt.Sprintf("d%d/%d", i%7, i), 150_000)
	}
	list := liveChunks(t, first)
	const page = 8
	cfg := memberConfig(t, "n2")
	cfg.Join, cfg.movePage = []string{first.cfg.Peer}, page
	second := openMember(t, cfg)
	nodes := []*Node{first, second}
	placed(t, first, 2, nodes...)
	if err := missingAt(list, first.places, nodes); err != nil {
		t.Fatal(err) // the move had ended
	}
	wrote.check(t, second)
	most, pages := second.moves.most.Load(), second.moves.pages.Load()
	if most == 0 || most > page || pages < int64(len(list)/page) {
		t.Fatalf("%d chunks moved in %d pages, up to %d at a time; pages have %d", len(list), pages, most, page)
	}
}

// TestUploadAcrossMove: a chunk of an upload that is under way while its group moves is
// waited for, and comes along; one of an upload that nobody drives any more is not.
func TestUploadAcrossMove(t *testing.T) {
	first := joinNode(t, nil, "n1")
	if _, err := first.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	orphan := object.ChunkID{Owner: 1, Upload: newUploadID()} // of a process that is no more
	if _, err := first.copies.PutPieces(t.Context(), orphan, copies.Copies(3), [][]byte{[]byte("left behind")}, func() {}); err != nil {
		t.Fatal(err)
	}
	body, r := strings.Repeat("slow", 50_000), make(chan string)
	done := make(chan error, 1)
	go func() {
		_, err := first.Put(t.Context(), "box", "slow", &parts{from: r}, PutOptions{Size: int64(len(body))})
		done <- err
	}()
	r <- body[:150_000] // two chunks, and some
	onDisk := func() (ids []object.ChunkID) {
		owners, err := first.chunks.Partitions()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range owners {
			if err := first.chunks.Each(t.Context(), p, object.ChunkID{}, func(id object.ChunkID) error {
				if id != orphan {
					ids = append(ids, id)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		return ids
	}
	eventually(t, "two chunks on disk", func() error {
		if n := len(onDisk()); n < 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	waiting := map[int]bool{}
	l := first.places.byWidth[3].Load()
	for _, id := range onDisk() {
		waiting[l.Group(id)] = true
	}
	second := joinNode(t, first, "n2")
	eventually(t, "the groups without the upload", func() error {
		s, err := first.Control(t.Context())
		if err != nil {
			return err
		}
		for i, g := range s.Layout(3).Groups {
			if moved := g.Next == nil && slices.Contains(g.Holders, "n2"); moved == waiting[i] {
				return fmt.Errorf("group %d is on %q, going to %q; of the upload: %v", i, g.Holders, g.Next, waiting[i])
			}
		}
		return nil
	})
	r <- body[150_000:]
	close(r)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	nodes := []*Node{first, second}
	placed(t, first, 2, nodes...)
	complete(t, nodes)
	objects{"slow": body}.check(t, second)
}

// parts is a body that comes in parts.
type parts struct {
	from chan string
	rest string
}

func (p *parts) Read(b []byte) (int, error) {
	if p.rest == "" {
		more, ok := <-p.from
		if !ok {
			return 0, io.EOF
		}
		p.rest = more
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
