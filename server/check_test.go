package server

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// checked asks for a check, held against the contract.
func checked(f *fixture) (r api.CheckResult) {
	f.t.Helper()
	a := f.want(200, "GET", "/cluster/check", "")
	if err := json.Unmarshal([]byte(a.body), &r); err != nil {
		f.t.Fatal(err)
	}
	return r
}

// chunkFiles lists the node's chunk files.
func chunkFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "chunks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCheck(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/dir/large", strings.Repeat("0123456789abcdef", 50000))
	f.want(201, "PUT", "/objects/assets/small", "inline")
	r := checked(f)
	if !r.OK || len(r.Findings) != 0 || r.Inodes < 3 || r.Dentries < 3 || r.Chunks != 4 || r.Extents != 4 || r.Node == "" || r.Truncated {
		t.Fatalf("a sound store: %+v", r)
	}
	files := chunkFiles(t, f.chunks)
	if len(files) != 4 {
		t.Fatalf("%d chunk files", len(files))
	}
	lost, stray := files[0], files[1][:len(files[1])-1]+"9"
	if err := errors.Join(os.Link(files[1], stray), os.Remove(lost)); err != nil {
		t.Fatal(err)
	}
	if r = checked(f); r.OK || r.Problems() != 2 || len(r.Findings) != 2 {
		t.Fatalf("a chunk lost and one strayed in: %+v", r)
	}
	for i, want := range []struct {
		kind api.FindingKind
		file string
	}{{api.FindingMissing, lost}, {api.FindingStray, stray}} {
		got := r.Findings[i]
		if got.Kind != want.kind || got.Meaning == "" || got.Advice == "" || !strings.Contains(got.Problems[0], filepath.Base(want.file)) {
			t.Errorf("%s of %s: %+v", want.kind, want.file, got)
		}
	}
	if got, err := f.client.Check(context.Background()); err != nil || got.Problems() != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOneCheckAtATime(t *testing.T) {
	f := newFixture(t, Options{})
	f.s.checking <- struct{}{}
	if a := f.want(409, "GET", "/cluster/check", ""); a.header.Get(api.HeaderError) != object.KindBusy.String() {
		t.Errorf("%v", a.header)
	}
	<-f.s.checking
	f.want(200, "GET", "/cluster/check", "")
}

// TestOnlyWhatStaysIsAProblem feeds reports of looks at a store that changes.
func TestOnlyWhatStaysIsAProblem(t *testing.T) {
	report := func(truncated map[replication.ProblemKind]int, texts ...string) replication.CheckReport {
		r := replication.CheckReport{Unlisted: truncated}
		for _, text := range texts {
			kind := replication.ProblemReferences
			if strings.HasPrefix(text, "stray") {
				kind = replication.ProblemStray
			}
			r.Problems = append(r.Problems, replication.Problem{Kind: kind, Text: text})
		}
		return r
	}
	stray := map[replication.ProblemKind]int{replication.ProblemStray: 7}
	type looks []replication.CheckReport
	for name, tc := range map[string]struct {
		looks looks
		want  replication.CheckReport
	}{
		"sound":                     {looks{report(nil)}, report(nil)},
		"one that goes":             {looks{report(nil, "a"), report(nil)}, report(nil)},
		"one goes, one comes":       {looks{report(nil, "a"), report(nil, "b")}, report(nil)},
		"one stays":                 {looks{report(nil, "a", "b"), report(nil, "b", "c"), report(nil, "c", "b")}, report(nil, "b")},
		"of another kind":           {looks{report(nil, "a"), {Problems: []replication.Problem{{Kind: replication.ProblemNames, Text: "a"}}}}, report(nil)},
		"more strays than listed":   {looks{report(stray, "stray 1"), report(stray, "stray 2"), report(nil, "stray 3")}, report(nil, "stray 3")},
		"which hide nothing":        {looks{report(stray, "stray 1", "a"), report(stray, "stray 2", "a"), report(stray, "stray 3", "a")}, report(stray, "stray 3", "a")},
		"and make no others stay":   {looks{report(stray, "stray 1", "a"), report(stray, "stray 2", "b"), report(stray, "stray 3", "c")}, report(stray, "stray 3")},
		"a list that is cut in one": {looks{report(nil, "stray 1"), report(stray, "stray 2"), report(nil, "stray 3")}, report(nil, "stray 3")},
	} {
		n := 0
		r, err := steady(t.Context(), func(context.Context) (*replication.CheckReport, error) {
			n++
			r := tc.looks[n-1]
			r.Problems = slices.Clone(r.Problems)
			return &r, nil
		}, time.Nanosecond)
		if err != nil || n != len(tc.looks) || !slices.Equal(r.Problems, tc.want.Problems) || !maps.Equal(r.Unlisted, tc.want.Unlisted) {
			t.Errorf("%s: %v after %d looks, %v", name, r, n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := steady(ctx, func(context.Context) (*replication.CheckReport, error) {
		cancel()
		r := report(nil, "a")
		return &r, nil
	}, time.Hour)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Every kind of problem is a finding of that kind, whatever its words; the
// contract and the client know the same kinds.
func TestEveryProblemHasAKindAndAdvice(t *testing.T) {
	documented := loadContract(t).Components.Schemas["FindingKind"].Value.Enum
	clients := []api.FindingKind{api.FindingMissing, api.FindingReferences, api.FindingNames, api.FindingStray, api.FindingUnchecked}
	kinds := replication.ProblemKinds()
	if len(documented) != len(kinds) || len(clients) != len(kinds) {
		t.Fatalf("%v, documented are %v, the client knows %v", kinds, documented, clients)
	}
	for i, kind := range kinds {
		problem := replication.Problem{Kind: kind, Text: "chunk 1 is missing on disk"}
		r := resultOf("n", &replication.CheckReport{Problems: []replication.Problem{problem}, Unlisted: map[replication.ProblemKind]int{kind: 3}})
		if r.OK || !r.Truncated || len(r.Findings) != 1 {
			t.Fatalf("%s: %+v", kind, r)
		}
		f := r.Findings[0]
		if f.Kind != kind.String() || f.Kind != clients[i] || documented[i] != kind.String() || f.Meaning == "" || f.Advice == "" || !f.Truncated || f.Unlisted != 3 {
			t.Errorf("%s (documented %v, client %s): %+v", kind, documented[i], clients[i], f)
		}
	}
}
