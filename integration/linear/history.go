// Package linear records what clients asked and were answered, and checks with
// porcupine (Wing and Gong's algorithm as Lowe made it fast) that it could have
// happened one operation after the other.
package linear

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Verb is what was asked.
type Verb string

// The verbs. A group of names takes all but Append; a log takes Append and Read.
const (
	Put    Verb = "put"    // Name := Value, under the condition
	Get    Verb = "get"    // → Value, or Missing
	Delete Verb = "delete" // → Missing where there was nothing
	Rename Verb = "rename" // Name becomes To, which it replaces
	List   Verb = "list"   // → Values of the names of one directory, all at one time
	Append Verb = "append" // Value behind all that is there → Offset
	Read   Verb = "read"   // → Value: the digest of all that was appended, Offset: its length
)

// Names is how many names a group has.
const Names = 4

// Input is an operation. Groups know nothing of each other and are checked alone.
type Input struct {
	Group string `json:"group"`
	Verb  Verb   `json:"verb"`
	Name  int    `json:"name,omitempty"` // 0 to Names-1
	To    int    `json:"to,omitempty"`   // of Rename
	Value string `json:"value,omitempty"`
	// Match is the value that a conditional Put or Delete wants to find; Absent: none.
	Match  string `json:"match,omitempty"`
	Absent bool   `json:"absent,omitempty"`
	// From and End are the names [From, End) that a List shows.
	From int `json:"from,omitempty"`
	End  int `json:"end,omitempty"`
}

// Result is how an operation was answered.
type Result string

// The results.
const (
	OK      Result = "ok"
	Missing Result = "missing" // there is no such name
	Refused Result = "refused" // the condition did not hold
	Unknown Result = "unknown" // it may have happened, or may yet, or never
)

// Output is the answer.
type Output struct {
	Result Result        `json:"result"`
	Value  string        `json:"value,omitempty"`
	Offset int64         `json:"offset,omitempty"`
	Values [Names]string `json:"values,omitzero"` // of List; "": no such name
}

// Operation is one line of a history. Times are nanoseconds since its start.
type Operation struct {
	Client int    `json:"client"`
	In     Input  `json:"in"`
	Call   int64  `json:"call"`
	Out    Output `json:"out"`
	Return int64  `json:"return"` // never, where the result is unknown
}

const never = math.MaxInt64

// History collects operations. It is safe for concurrent use.
type History struct {
	start time.Time

	mu   sync.Mutex // guards ops and notes
	ops  []Operation
	note []Note
}

// Note is what was done to the cluster.
type Note struct {
	From, To int64
	Text     string
}

// NewHistory begins one.
func NewHistory() *History { return &History{start: time.Now()} }

// Now is the time of the history.
func (h *History) Now() int64 { return int64(time.Since(h.start)) }

// Do records do, which a client performs. A read of an unknown outcome is left
// out: it says nothing.
func (h *History) Do(client int, in Input, do func() Output) Output {
	call := h.Now()
	out := do()
	op := Operation{Client: client, In: in, Call: call, Out: out, Return: h.Now()}
	if out.Result == Unknown {
		if in.Verb == Get || in.Verb == List || in.Verb == Read {
			return out
		}
		op.Return = never
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
	return out
}

// Mark notes what was done to the cluster from a time on until now.
func (h *History) Mark(from int64, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note = append(h.note, Note{from, h.Now(), fmt.Sprintf(format, args...)})
}

// Counts is how many operations there are, and how many of an unknown outcome.
func (h *History) Counts() (all, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		if op.Return == never {
			unknown++
		}
	}
	return len(h.ops), unknown
}

// Notes are those of Mark.
func (h *History) Notes() []Note {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Note(nil), h.note...)
}

// Groups are the histories of each group by itself.
func (h *History) Groups() map[string][]porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	groups := map[string][]porcupine.Operation{}
	for _, op := range h.ops {
		groups[op.In.Group] = append(groups[op.In.Group],
			porcupine.Operation{ClientId: op.Client, Input: op.In, Call: op.Call, Output: op.Out, Return: op.Return})
	}
	return groups
}

// Write writes the history as JSON, one operation a line.
func (h *History) Write(w io.Writer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	enc := json.NewEncoder(w)
	for _, n := range h.note {
		if err := enc.Encode(n); err != nil {
			return err
		}
	}
	for _, op := range h.ops {
		if err := enc.Encode(op); err != nil {
			return err
		}
	}
	return nil
}
