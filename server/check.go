package server

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	checkLooks = 3                      // a problem that is real stands in each of them
	checkPause = 300 * time.Millisecond // between two looks
	checkTime  = 30 * time.Minute       // for all of them
)

// check is GET /cluster/check. A check takes its 64 MiB and all of a disk's
// patience, so there is one at a time.
func (s *Server) check(c *gin.Context) error {
	select {
	case s.checking <- struct{}{}:
		defer func() { <-s.checking }()
	default:
		return object.Errorf(object.KindBusy, "another check of this node is running")
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), checkTime)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	r, err := steady(ctx, s.node.Check, checkPause)
	if s.closing.Err() != nil {
		err = object.Errorf(object.KindUnavailable, "the server is shutting down")
	}
	if err != nil {
		return object.WithOp(err, "check", "", "")
	}
	st, err := s.node.Status(ctx)
	if err != nil {
		return object.WithOp(err, "check", "", "")
	}
	return s.writeJSON(c, http.StatusOK, resultOf(st.Node, r))
}

// steady is a report of those problems alone that stay: a change that is made
// while the store is looked at, one partition after the other, can show up as a
// problem once, damage shows up every time.
func steady(ctx context.Context, look func(context.Context) (*replication.CheckReport, error), pause time.Duration) (*replication.CheckReport, error) {
	var last *replication.CheckReport
	for n := 1; ; n++ {
		r, err := look(ctx)
		if err != nil {
			return nil, err
		}
		if n > 1 {
			r.Problems = inBoth(last, r)
		}
		if n == checkLooks || len(r.Problems) == 0 {
			return r, nil
		}
		last = r
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// inBoth is what stands in both reports. A list that is cut off says nothing
// about what it lacks: of such a kind all that stands now counts.
func inBoth(before, now *replication.CheckReport) []replication.Problem {
	had := make(map[replication.Problem]bool, len(before.Problems))
	for _, p := range before.Problems {
		had[p] = true
	}
	return slices.DeleteFunc(slices.Clone(now.Problems), func(p replication.Problem) bool {
		return !had[p] && !before.Truncated(p.Kind) && !now.Truncated(p.Kind)
	})
}

// resultOf groups a report's problems by kind.
func resultOf(node string, r *replication.CheckReport) api.CheckResult {
	out := api.CheckResult{Node: node, OK: len(r.Problems) == 0, Inodes: r.Inodes, Dentries: r.Dentries, Extents: r.Extents, Chunks: r.Chunks,
		Open: r.Open, Garbage: r.Garbage, Findings: []api.Finding{}, Truncated: len(r.Unlisted) > 0}
	for _, kind := range replication.ProblemKinds() {
		f := finding(kind)
		f.Truncated, f.Unlisted = r.Truncated(kind), r.Unlisted[kind]
		for _, p := range r.Problems {
			if p.Kind == kind {
				f.Problems = append(f.Problems, p.Text)
			}
		}
		if len(f.Problems) > 0 {
			out.Findings = append(out.Findings, f)
		}
	}
	return out
}

// finding says what a kind of problem means and what to do about it.
func finding(kind replication.ProblemKind) api.Finding {
	f := api.Finding{Kind: kind.String()}
	switch kind {
	case replication.ProblemMissing:
		f.Meaning = "The bytes of this chunk are gone from the storage paths. What needs them answers with the error Corrupt; everything else is not affected."
		f.Advice = "Is a disk of -storage not mounted, or was one left out? Look into quarantine/ of the storage paths for a damaged copy. Else put the file back from a backup, " +
			"or store the objects anew: the node's log names each one whose read failed."
	case replication.ProblemStray:
		f.Meaning = "A file takes space and belongs to nothing. No data is affected."
		f.Advice = "Nothing: an audit at the start of the node and every hour asks the file's owner and drops it. Report it if it is still there after two hours. Do not delete files by hand."
	case replication.ProblemUnchecked:
		f.Meaning = "A node did not answer, so it is not known whether it has its copies or shards. No data need be affected: the other holders are listed by themselves."
		f.Advice = "Look whether the node runs and is reached from the one that checked, and check again."
	case replication.ProblemReferences:
		f.Meaning = "A chunk is counted as used more or less often than it is. Too often: its space will not come back. Too seldom: deleting one of its users could drop what another needs."
		f.Advice = "Delete nothing that was copied or linked before you made a backup. This is a fault of BucketDB: report it with this output."
	case replication.ProblemNames:
		f.Meaning = "A name leads nowhere, an inode has no name, or a type or a link count is wrong. A file or directory can be out of reach, or its removal be refused; other names are not affected."
		f.Advice = "Make a backup of what can be read. This is a fault of BucketDB: report it with this output."
	}
	return f
}
