package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// The report names each kind as programs know it, and says where it was cut off.
func TestCheckReport(t *testing.T) {
	result := api.CheckResult{Node: "n1", Chunks: 7, Truncated: true, Findings: []api.Finding{
		{Kind: api.FindingMissing, Meaning: "gone", Advice: "bring it back", Problems: []string{"chunk 1"}},
		{Kind: api.FindingStray, Meaning: "too many", Advice: "wait", Problems: []string{"chunk 2", "chunk 3"}, Truncated: true},
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(result); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	check := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		args = append([]string{"cluster", "check", "--endpoint", srv.URL}, args...)
		code := run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &errs}, noEnv)
		return code, out.String() + errs.String()
	}
	code, out := check()
	for _, want := range []string{"3 or more problems", "missing-data (1)\n", "stray-data (2 or more)\n", "What to do: bring it back", "does not hold its invariants"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the report:\n%s", want, out)
		}
	}
	if code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	result.Findings[1].Unlisted = 40
	if _, out = check(); !strings.Contains(out, "  43 problems\n") || !strings.Contains(out, "stray-data (42, of which 2 are listed)\n") {
		t.Errorf("%s", out)
	}
	_, out = check("--json")
	var got api.CheckResult
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&got); err != nil || got.Findings[1].Kind != api.FindingStray || !got.Findings[1].Truncated {
		t.Errorf("%v: %s", err, out)
	}
	result.Truncated, result.Findings = false, result.Findings[:1]
	if _, out = check(); !strings.Contains(out, "  1 problem\n") {
		t.Errorf("%s", out)
	}
}

// cp of a standard input that nobody writes to ends when it is interrupted.
func TestCopyOfASilentInputCanBeInterrupted(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })) // cut off
	defer srv.Close()
	in, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"cp", "-", "bd://box/key", "--endpoint", srv.URL}, streams{in: in, out: io.Discard, err: io.Discard}, noEnv)
	}()
	if _, err := w.Write([]byte("some")); err != nil { // returns when the command has read it
		t.Fatal(err)
	}
	cancel()
	select {
	case code := <-done:
		if code == exitOK {
			t.Error("it succeeds")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}
