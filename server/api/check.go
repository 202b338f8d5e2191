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

	Findings  []Finding `json:"findings"`            // one a kind, the gravest first
	Truncated bool      `json:"truncated,omitempty"` // there are more problems than the findings list
}

// Finding is a kind of invariant that does not hold, with the places where it
// was found broken.
type Finding struct {
	Kind      FindingKind `json:"kind"`
	Meaning   string      `json:"meaning"`             // what it does to the data
	Advice    string      `json:"advice"`              // what to do
	Problems  []string    `json:"problems"`            // where, in words that may change
	Truncated bool        `json:"truncated,omitempty"` // there are more of this kind
	Unlisted  int         `json:"unlisted,omitempty"`  // how many more
}

// FindingKind is what is wrong, for programs: its values do not change. A newer
// server may know more of them.
type FindingKind = string

// The kinds of findings, the gravest first.
const (
	FindingMissing    FindingKind = "missing-data" // a chunk is on record, its file is not on disk
	FindingReferences FindingKind = "references"   // a chunk's count of references is wrong
	FindingNames      FindingKind = "names"        // names, inodes and link counts do not fit together
	FindingStray      FindingKind = "stray-data"   // a chunk's file is on disk and no record names it
	FindingUnchecked  FindingKind = "not-checked"  // a node did not answer: what it has is not known
)

// Problems is the number of problems that the findings list.
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
