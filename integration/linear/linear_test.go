package linear

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// at is an operation from one second to another; a return of 0 is never.
func at(client int, call, ret int64, in Input, out Output) Operation {
	if in.Group == "" {
		in.Group = "g"
	}
	if out.Result == "" {
		out.Result = OK
	}
	if ret == 0 {
		ret, out.Result = never, Unknown
	} else {
		ret *= int64(time.Second)
	}
	return Operation{Client: client, In: in, Call: call * int64(time.Second), Out: out, Return: ret}
}

func put(v string) Input            { return Input{Verb: Put, Value: v} }
func got(v string) Output           { return Output{Value: v} }
func answer(r Result) Output        { return Output{Result: r} }
func list(vs ...string) (o Output)  { copy(o.Values[:], vs); return o }
func appended(offset int64) Output  { return Output{Offset: offset} }
func read(o int64, d string) Output { return Output{Offset: o, Value: d} }

// TestVerdicts: what can have happened passes; a planted stale read, a lost
// write, one that comes back and a torn rename do not.
func TestVerdicts(t *testing.T) {
	get, del, all := Input{Verb: Get}, Input{Verb: Delete}, Input{Verb: List, End: Names}
	move, logRead := Input{Verb: Rename, To: 1}, Input{Verb: Read}
	grow := func(v string) Input { return Input{Verb: Append, Value: v} }
	for name, c := range map[string]struct {
		good bool
		ops  []Operation
	}{
		"a fresh read":             {true, []Operation{at(0, 1, 2, put("a"), Output{}), at(1, 3, 4, get, got("a"))}},
		"a stale read":             {false, []Operation{at(0, 1, 2, put("a"), Output{}), at(0, 3, 4, put("b"), Output{}), at(1, 5, 6, get, got("a"))}},
		"an early read of both":    {true, []Operation{at(0, 1, 9, put("a"), Output{}), at(1, 2, 3, get, answer(Missing)), at(1, 4, 5, get, got("a"))}},
		"a read that went back":    {false, []Operation{at(0, 1, 9, put("a"), Output{}), at(1, 2, 3, get, got("a")), at(2, 4, 5, get, answer(Missing))}},
		"a lost write":             {false, []Operation{at(0, 1, 2, put("a"), Output{}), at(1, 3, 4, get, answer(Missing))}},
		"an unknown write, late":   {true, []Operation{at(0, 1, 0, put("a"), Output{}), at(1, 2, 3, get, answer(Missing)), at(1, 8, 9, get, got("a"))}},
		"an unknown write, never":  {true, []Operation{at(0, 1, 0, put("a"), Output{}), at(1, 2, 3, get, answer(Missing))}},
		"an unknown write, twice":  {false, []Operation{at(0, 1, 0, put("a"), Output{}), at(1, 2, 3, get, got("a")), at(1, 4, 5, put("b"), Output{}), at(1, 8, 9, get, got("a"))}},
		"a condition that held":    {true, []Operation{at(0, 1, 2, put("a"), Output{}), at(1, 3, 4, Input{Verb: Put, Value: "b", Match: "a"}, Output{}), at(1, 5, 6, get, got("b"))}},
		"a condition that did not": {false, []Operation{at(0, 1, 2, put("a"), Output{}), at(1, 3, 4, Input{Verb: Put, Value: "b", Match: "x"}, Output{})}},
		"refused for nothing":      {false, []Operation{at(0, 1, 2, put("a"), Output{}), at(1, 3, 4, Input{Verb: Put, Value: "b", Match: "a"}, answer(Refused))}},
		"two first writers":        {false, []Operation{at(0, 1, 9, Input{Verb: Put, Value: "a", Absent: true}, Output{}), at(1, 1, 9, Input{Verb: Put, Value: "b", Absent: true}, Output{})}},
		"a deletion":               {true, []Operation{at(0, 1, 2, put("a"), Output{}), at(0, 3, 4, del, Output{}), at(1, 5, 6, del, answer(Missing))}},
		"a resurrection":           {false, []Operation{at(0, 1, 2, put("a"), Output{}), at(0, 3, 4, del, Output{}), at(1, 5, 6, get, got("a"))}},
		"a rename, listed":         {true, []Operation{at(0, 1, 2, put("a"), Output{}), at(0, 3, 9, move, Output{}), at(1, 4, 5, all, list("a")), at(1, 6, 7, all, list("", "a"))}},
		"a rename, seen twice":     {false, []Operation{at(0, 1, 2, put("a"), Output{}), at(0, 3, 9, move, Output{}), at(1, 4, 5, all, list("a", "a"))}},
		"a rename, seen nowhere":   {false, []Operation{at(0, 1, 2, put("a"), Output{}), at(0, 3, 9, move, Output{}), at(1, 4, 5, all, list())}},
		"a page of the list":       {true, []Operation{at(0, 1, 2, put("a"), Output{}), at(1, 4, 5, Input{Verb: List, From: 2, End: 4}, list())}},
		"appends":                  {true, []Operation{at(0, 1, 9, grow("aa"), appended(2)), at(1, 1, 9, grow("bb"), appended(0)), at(0, 10, 11, logRead, read(4, Chain(Chain("", "bb"), "aa")))}},
		"an append made twice":     {false, []Operation{at(0, 1, 2, grow("aa"), appended(0)), at(1, 3, 4, grow("bb"), appended(4))}},
		"an append that is lost":   {false, []Operation{at(0, 1, 2, grow("aa"), appended(0)), at(1, 3, 4, logRead, read(0, ""))}},
	} {
		dir := t.TempDir()
		h := NewHistory()
		h.ops = c.ops
		err := h.Check(dir, time.Minute)
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), "is not linearizable: see "+dir) {
			t.Errorf("%s: %v", name, err)
		}
		for _, file := range []string{"history.ndjson", "g.html"} {
			if info, err := os.Stat(filepath.Join(dir, file)); (err == nil) == c.good || (err == nil && info.Size() == 0) {
				t.Errorf("%s: %s: %v", name, file, err)
			}
		}
	}
}

// TestGroupsAreApart: what is wrong in one group does not hide behind the others.
func TestGroupsAreApart(t *testing.T) {
	h := NewHistory()
	from := h.Now()
	for _, group := range []string{"g", "h"} {
		for range 3 {
			h.Do(1, Input{Group: group, Verb: Put, Value: group}, func() Output { return Output{Result: OK} })
		}
		h.Do(2, Input{Group: group, Verb: Get}, func() Output { return Output{Result: OK, Value: "g"} })
	}
	h.Do(2, Input{Group: "h", Verb: Get}, func() Output { return Output{Result: Unknown} }) // says nothing
	h.Do(2, Input{Group: "g", Verb: Delete}, func() Output { return Output{Result: Unknown} })
	h.Mark(from, "nothing at all")
	if all, unknown := h.Counts(); all != 9 || unknown != 1 {
		t.Errorf("%d operations, %d unknown", all, unknown)
	}
	err := h.Check(t.TempDir(), time.Minute)
	if err == nil || !strings.Contains(err.Error(), "group h") || strings.Contains(err.Error(), "group g") {
		t.Errorf("%v", err)
	}
}
