package replication

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// ProblemKind tells broken invariants apart by what they do to the data. Append only.
type ProblemKind uint8

// The kinds of problems, the gravest first.
const (
	ProblemMissing    ProblemKind = iota // a chunk is on record, its file is not on disk
	ProblemReferences                    // a chunk's count of references is wrong
	ProblemNames                         // names, inodes and link counts do not fit together
	ProblemStray                         // a chunk's file is on disk and no record names it
	ProblemUnchecked                     // a node did not say whether it has what belongs there

	problemKinds
)

// String is the kind's name on the wire.
func (k ProblemKind) String() string {
	switch k {
	case ProblemMissing:
		return "missing-data"
	case ProblemReferences:
		return "references"
	case ProblemNames:
		return "names"
	case ProblemStray:
		return "stray-data"
	case ProblemUnchecked:
		return "not-checked"
	}
	return fmt.Sprintf("ProblemKind(%d)", uint8(k))
}

// ProblemKinds are all kinds, the gravest first.
func ProblemKinds() []ProblemKind {
	list := make([]ProblemKind, problemKinds)
	for k := range list {
		list[k] = ProblemKind(k)
	}
	return list
}

// Problem is one place where an invariant is broken.
type Problem struct {
	Kind ProblemKind
	Text string // what and where, for people
}

func (p Problem) String() string { return p.Kind.String() + ": " + p.Text }

// CheckReport is what Check found.
type CheckReport struct {
	// What was looked at. Chunks are those on record with their owners here.
	Inodes, Dentries, Extents, Chunks int
	// Open counts transactions under way and Garbage what waits to be reclaimed:
	// neither is a fault, but with both at zero every count must be exact.
	Open, Garbage int
	// Problems are broken invariants, sorted by kind and text; at most
	// MaxProblems of a kind.
	Problems []Problem
	// Unlisted is how many more there are of a kind; kinds with none are not in
	// it. Which of a kind's problems are listed is chance.
	Unlisted map[ProblemKind]int
}

// Truncated tells whether there are more problems of a kind than the report lists.
func (r *CheckReport) Truncated(k ProblemKind) bool { return r.Unlisted[k] > 0 }

// MaxProblems is how many problems of one kind a CheckReport lists.
const MaxProblems = 1000

// Check compares the namespace with its invariants: every dentry names an
// inode, link counts are right, every inode has a name, every extent's chunk
// is on record with the right number of references and on disk, and nothing is
// on disk that no record names. Every chunk is looked for at every node that holds it
// under the map; files that no record names are looked for at this node alone, as each
// node's audit does. It is exact on a store at rest; changes under way may show up as problems.
//
// It takes up to 64 MiB, whatever the store holds: all metadata is walked once
// and summed up, and walked again only for the ids that the sums do not clear,
// once for each 256 Ki of them (DESIGN.md, "The check"). It ends with ctx.
func (n *Node) Check(ctx context.Context) (*CheckReport, error) {
	return n.checkWithin(ctx, checkBudget())
}

// checkWithin is Check within other limits.
func (n *Node) checkWithin(ctx context.Context, limits checkLimits) (*CheckReport, error) {
	return newChecker(checkedNode{n}, limits).run(ctx)
}

// checkBudget is 8 MiB of sums, and rows that take less than 56 MiB with all that
// a map keeps free.
func checkBudget() checkLimits { return checkLimits{hold: checkHold, sums: 1 << 19, rows: 1 << 18} }

// checkLimits bound what a check holds.
type checkLimits struct {
	hold time.Duration // of a view before it is read
	sums int           // in each of two arrays, 8 bytes a sum; a power of two, at least 2
	rows int           // of a closer look, some 130 bytes each
	all  bool          // in tests: look closer at everything, whatever the sums say
}

// checked is what a check looks at: a node, or the facts of a test. For one goroutine.
type checked interface {
	partitions() []object.PartitionID
	// views opens a view of each partition, all of nearly the same moment.
	views(ctx context.Context, parts []object.PartitionID) ([]checkedView, error)
	// owners are the partitions that chunk files may belong to, in order.
	owners() ([]object.PartitionID, error)
	// files calls fn for each chunk file of an owner, in the order of their ids.
	files(ctx context.Context, owner object.PartitionID, fn func(object.ChunkID) error) error
	// known, onDisk and writing tell of a single chunk as it is now: is it on
	// record, is it being released; is its file there; is its upload under way.
	known(ctx context.Context, id object.ChunkID) (live, releasing bool, err error)
	onDisk(id object.ChunkID) (bool, error)
	writing(context.Context, object.UploadID) (bool, error)
	// holders says whether this node, and whether others, are to have a chunk now.
	holders(c copies.Chunk) (here, elsewhere bool)
	// lookFor asks the other holders of a chunk that ask picks. Safe for concurrent use.
	lookFor(ctx context.Context, c copies.Chunk, ask func(node string) bool) ([]copies.Holding, error)
}

// checkedView is a namespace.View.
type checkedView interface {
	Walk(context.Context, namespace.Visitor) error
	Close()
}

type checkedNode struct{ n *Node }

func (c checkedNode) partitions() []object.PartitionID {
	return slices.Collect(c.n.ids(object.Control))
}

func (c checkedNode) views(ctx context.Context, parts []object.PartitionID) ([]checkedView, error) {
	here := make([]bool, len(parts)) // what was acknowledged so far is at this node
	for i, id := range parts {
		m, err := c.n.current(ctx, id)
		if err != nil {
			return nil, err
		}
		here[i] = m != nil
	}
	list := make([]checkedView, len(parts))
	for i, id := range parts { // those here wait for nothing
		v, err := c.viewOf(ctx, id, here[i])
		if err != nil {
			closeViews(list[:i])
			return nil, err
		}
		list[i] = v
	}
	return list, nil
}

// viewOf opens a view of a partition, here if that was current a moment ago and its
// state has not begun to be replaced since.
func (c checkedNode) viewOf(ctx context.Context, id object.PartitionID, here bool) (checkedView, error) {
	if r := c.n.parts[id].here.Load(); here && r != nil {
		if v, err := r.machine.Local(); err == nil {
			return v, nil
		}
	}
	return c.n.view(ctx, id)
}

func (c checkedNode) owners() ([]object.PartitionID, error) { return c.n.chunks.Partitions() }

func (c checkedNode) files(ctx context.Context, owner object.PartitionID, fn func(object.ChunkID) error) error {
	return c.n.chunks.Each(ctx, owner, object.ChunkID{}, fn)
}

func (c checkedNode) known(ctx context.Context, id object.ChunkID) (live, releasing bool, err error) {
	if int(id.Owner) >= len(c.n.parts) {
		return false, false, nil
	}
	err = c.n.inView(ctx, id.Owner, func(v *namespace.View) (err error) {
		live, releasing, err = v.Knows(id)
		return err
	})
	return live, releasing, err
}

func (c checkedNode) onDisk(id object.ChunkID) (bool, error) { return c.n.chunks.Has(id) }

func (c checkedNode) writing(ctx context.Context, u object.UploadID) (bool, error) {
	spared, err := c.n.underway(ctx, []object.UploadID{u})
	return spared[u], err
}

func (c checkedNode) holders(ch copies.Chunk) (here, elsewhere bool) {
	site, err := c.n.places.locate(ch.ID, ch.Scheme)
	if err != nil {
		return true, false // of a scheme that no map has: there can be no other
	}
	for i := range site.Width() {
		switch site.Now(i) {
		case placement.NodeID(c.n.cfg.NodeID):
			here = true
		case placement.None:
		default:
			elsewhere = true
		}
	}
	return here, elsewhere
}

func (c checkedNode) lookFor(ctx context.Context, ch copies.Chunk, ask func(node string) bool) ([]copies.Holding, error) {
	return c.n.copies.Look(ctx, ch, func(node string) bool { return node != c.n.cfg.NodeID && ask(node) })
}

// checker makes one report. For one goroutine, but for problem and unsaid.
type checker struct {
	on     checked
	limits checkLimits
	r      *CheckReport
	hash   hasher
	inodes *sums
	chunks *sums
	// releasing counts chunks whose files are being dropped: garbage, but no
	// inode without a name is among it.
	releasing int
	// looks and most, for tests: closer looks taken, and the most rows of one.
	looks, most int

	mu     sync.Mutex // guards what follows, and r.Problems
	counts [problemKinds]int
	silent map[string]*silence // nodes that did not answer
}

// silence is a node that did not answer, and is asked no more.
type silence struct {
	chunks int // that belong there and were not looked for
	why    error
}

func newChecker(on checked, limits checkLimits) *checker {
	return &checker{on: on, limits: limits, r: &CheckReport{}, hash: newHasher(),
		inodes: newSums(limits.sums), chunks: newSums(limits.sums)}
}

// problem lists a problem. Each kind has its own limit, so that many of one do
// not hide another.
func (c *checker) problem(k ProblemKind, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[k]++; c.counts[k] <= MaxProblems {
		c.r.Problems = append(c.r.Problems, Problem{k, fmt.Sprintf(format, args...)})
	}
}

// run surveys the store, looks closer where that found no balance, and closes
// the report.
func (c *checker) run(ctx context.Context) (*CheckReport, error) {
	if err := c.survey(ctx); err != nil {
		return nil, err
	}
	if err := c.lookCloser(ctx); err != nil {
		return nil, err
	}
	for node, s := range c.silent {
		c.problem(ProblemUnchecked, "node %s did not answer: %d chunks that belong there were not looked for (%v)", node, s.chunks, s.why)
	}
	for k, n := range c.counts {
		if n > MaxProblems {
			if c.r.Unlisted == nil {
				c.r.Unlisted = map[ProblemKind]int{}
			}
			c.r.Unlisted[ProblemKind(k)] = n - MaxProblems
		}
	}
	slices.SortFunc(c.r.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text))
	})
	return c.r, nil
}
