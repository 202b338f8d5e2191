package api

import "context"

// CheckResult is the answer to GET /cluster/check: what the node that answered
// looked at, and which invariants of its store do not hold.
type CheckResult struct {
	Node string `json:"node"`
	OK   bool   `json:"ok"` // no findings

	Inodes   int `json:"inodes"`
	Dentries int `json:"dentries"`
	Extents  int `json:"extents"`
	Chunks   int `json:"chunks"`
	// Open counts changes under way and Garbage what waits to be reclaimed:
	// neither is a fault. With both at zero the check is exact; else a finding
	// may be about a change that is not finished.
	Open    int `json:"open"`
	Garbage int `json:"garbage"`

	Findings  []Finding `json:"findings"`
	Truncated bool      `json:"truncated,omitempty"` // there are more problems than the findings list
}

// Finding is a kind of invariant that does not hold, with all the places where
// it was found broken.
type Finding struct {
	Kind     string   `json:"kind"`     // one of the Finding constants
	Meaning  string   `json:"meaning"`  // what it does to the data
	Advice   string   `json:"advice"`   // what to do
	Problems []string `json:"problems"` // where, in words
}

// The kinds of findings.
const (
	FindingMissing    = "missing-data" // a chunk is on record, its file is not on disk
	FindingStray      = "stray-data"   // a chunk's file is on disk and no record names it
	FindingReferences = "references"   // a chunk's count of references is wrong
	FindingNames      = "names"        // names, inodes and link counts do not fit together
)

// Problems is the number of problems in all findings.
func (r *CheckResult) Problems() (n int) {
	for _, f := range r.Findings {
		n += len(f.Problems)
	}
	return n
}

// Check has the node that answers compare its store with its invariants. It
// reads all metadata and the names of all chunk files, none of their bytes, and
// nothing comes before it is done: give ctx and ClientOptions.AnswerTimeout the
// time that a store of that size needs. KindBusy: another check is running.
func (c *Client) Check(ctx context.Context) (r CheckResult, err error) {
	return r, c.doJSON(ctx, &call{op: "check", method: "GET", path: "/cluster/check"}, &r)
}
