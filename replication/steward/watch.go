package steward

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// watch is what the other nodes answered. Safe for concurrent use.
type watch struct {
	self  control.NodeID
	now   func() time.Time // monotonic
	upFor time.Duration
	most  time.Duration // what one failed question adds to a node's silence at most

	mu    sync.Mutex // guards what follows; a leaf
	nodes map[control.NodeID]*watched
}

// watched is one node.
type watched struct {
	asking   bool
	soon     bool      // it is asked in the next round, whatever the pause
	asked    time.Time // when the last question ended; zero: never
	answered time.Time // when the last answer came; zero: never
	failed   bool      // the last question
	silent   time.Duration
	report   *report // the last
}

func newWatch(self control.NodeID, now func() time.Time, upFor, most time.Duration) *watch {
	return &watch{self: self, now: now, upFor: upFor, most: most, nodes: map[control.NodeID]*watched{}}
}

// begin reports whether a node is to be asked now, and notes that it is: one
// question at a time, and at least every apart.
func (w *watch) begin(node control.NodeID, every time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.nodes[node]
	if n == nil {
		n = &watched{}
		w.nodes[node] = n
	}
	if node == w.self || n.asking || !n.soon && !n.asked.IsZero() && w.now().Sub(n.asked) < every {
		return false
	}
	n.asking, n.soon = true, false
	return true
}

// end notes what a question came to, and reports whether that is news.
func (w *watch) end(node control.NodeID, r *report) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, now := w.nodes[node], w.now()
	was := n.report
	wasUp := !n.failed
	switch {
	case r != nil:
		n.report, n.answered, n.failed, n.silent = r, now, false, 0
	case !n.asked.IsZero():
		// Each failure counts only for the time since the one before, within bounds: the time in
		// which this node itself stood still is not the other's silence.
		n.failed = true
		n.silent += min(now.Sub(n.asked), w.most)
	default:
		n.failed = true
	}
	n.asked, n.asking = now, false
	if r == nil || was == nil || !wasUp {
		return wasUp == (r == nil) || was == nil && r != nil
	}
	return was.Incarnation != r.Incarnation || was.Epoch != r.Epoch || !maps.Equal(was.held(), r.held()) || !slices.Equal(was.Verified, r.Verified)
}

// due makes a node be asked in the next round: something has just changed there.
func (w *watch) due(node control.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.nodes[node]; n != nil {
		n.soon = true
	}
}

// reset makes all silence begin at zero: who has just become control leader has not listened before.
func (w *watch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		n.silent = 0
	}
}

// forget drops nodes that are not in the cluster any more.
func (w *watch) forget(st *control.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, n := range w.nodes {
		if r := st.Node(id); !n.asking && (r == nil || r.Life == control.NodeRemoved) {
			delete(w.nodes, id)
		}
	}
}

// seen is the planner's view of a node, as the state has it; ok is false for one that was never asked.
func (w *watch) seen(n *control.Node) (control.NodeSeen, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.nodes[n.ID]
	if x == nil || x.asked.IsZero() {
		return control.NodeSeen{}, false
	}
	out := control.NodeSeen{Silent: x.silent}
	if x.report == nil {
		return out, true
	}
	// What it told stays true: ids are never used again, and records only go forward.
	out.Replicas, out.Epoch = x.report.held(), x.report.Epoch
	out.Up = !x.failed && x.report.Incarnation == n.Incarnation && w.now().Sub(x.answered) < w.upFor
	return out, true
}

// verified adds the chunk groups that nodes have complete. It counts for the process
// that said so: the next one may have found its disks empty.
func (w *watch) verified(st *control.State, into map[control.GroupKey][]control.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, n := range w.nodes {
		if r := st.Node(id); r == nil || n.report == nil || n.report.Incarnation != r.Incarnation {
			continue
		}
		for _, key := range n.report.Verified {
			if !slices.Contains(into[key], id) {
				into[key] = append(into[key], id)
			}
		}
	}
}

// groups are the partitions that other nodes said they lead.
func (w *watch) groups(into map[object.PartitionID]control.GroupSeen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.report == nil || n.failed {
			continue
		}
		for i := range n.report.Groups {
			g := &n.report.Groups[i]
			if old, has := into[g.Partition]; !has || old.Current < g.Current {
				into[g.Partition] = g.seen()
			}
		}
	}
}

// complaints logs what goes wrong, the same once in a while.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex // guards last; a leaf
	last map[string]complaint
}

type complaint struct {
	at    time.Time
	error string
}

// complainEvery is how often the same is said.
const complainEvery = 30 * time.Second

func newComplaints(log *slog.Logger, now func() time.Time) *complaints {
	return &complaints{log: log, now: now, last: map[string]complaint{}}
}

// warn logs an error about a subject, unless just that was logged a little while ago.
func (c *complaints) warn(subject, what string, err error, args ...any) {
	c.mu.Lock()
	old, now := c.last[subject], c.now()
	again := old.error == err.Error() && now.Sub(old.at) < complainEvery || now.Sub(old.at) < complainEvery/10 && !old.at.IsZero()
	if !again {
		if len(c.last) > 10000 { // subjects are partitions and nodes: this is never reached
			clear(c.last)
		}
		c.last[subject] = complaint{now, err.Error()}
	}
	c.mu.Unlock()
	if !again {
		c.log.Warn(what, append(args, "error", err)...)
	}
}
