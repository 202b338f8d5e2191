package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	for i, want := range []struct{ kind, file string }{{api.FindingMissing, lost}, {api.FindingStray, stray}} {
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
	full := make([]string, maxProblems)
	for i := range full {
		full[i] = fmt.Sprint(i)
	}
	for _, tc := range []struct {
		looks [][]string
		want  []string
	}{
		{[][]string{nil}, nil},
		{[][]string{{"a"}, nil}, nil},
		{[][]string{{"a"}, {"b"}}, []string{}},
		{[][]string{{"a", "b"}, {"b", "c"}, {"c", "b"}}, []string{"b"}},
		{[][]string{full, {"x"}, {"x"}}, []string{"x"}},
		{[][]string{{"x"}, full, full}, full},
	} {
		looks := 0
		r, err := steady(t.Context(), func(context.Context) (*replication.CheckReport, error) {
			looks++
			return &replication.CheckReport{Problems: slices.Clone(tc.looks[looks-1])}, nil
		}, time.Nanosecond)
		if err != nil || looks != len(tc.looks) || !slices.Equal(r.Problems, tc.want) {
			t.Errorf("%.60v: %.60v after %d looks, %v", tc.looks, r, looks, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := steady(ctx, func(context.Context) (*replication.CheckReport, error) {
		cancel()
		return &replication.CheckReport{Problems: []string{"a"}}, nil
	}, time.Hour)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestEveryProblemHasAKindAndAdvice(t *testing.T) {
	for problem, kind := range map[string]string{
		"chunk 0001 is missing on disk":                                  api.FindingMissing,
		"chunk 0001 is on disk and nobody knows it":                      api.FindingStray,
		"chunk 0001: partition 2 counts 3 references, there are 2":       api.FindingReferences,
		"chunk 0001: partition 2 counts 3 references, nothing names it":  api.FindingReferences,
		"directory 0001 has 0 names":                                     api.FindingNames,
		"file 0001 has a link count of 1 and 2 names":                    api.FindingNames,
		`entry "chunk is missing on disk, no" of directory 1 is filed …`: api.FindingNames,
		"something that a later version finds":                           api.FindingNames,
	} {
		r := resultOf("n", &replication.CheckReport{Problems: []string{problem}})
		if r.OK || len(r.Findings) != 1 || r.Findings[0].Kind != kind || r.Findings[0].Meaning == "" || r.Findings[0].Advice == "" {
			t.Errorf("%s: %+v", problem, r)
		}
	}
}
