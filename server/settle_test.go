package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// lossy is a connection that loses answers, or keeps requests on their way.
type lossy struct {
	mu   sync.Mutex // guards what follows
	lose bool       // the answer, once the server has it
	late bool       // the request: it arrives when the test says so
	kept []*http.Request
}

func (l *lossy) set(lose, late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose, l.late = lose, late
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late {
		again := r.Clone(context.Background())
		if r.Body != nil {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			again.Body = io.NopCloser(bytes.NewReader(body))
		}
		l.kept = append(l.kept, again)
		return nil, errors.New("no answer yet")
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && l.lose {
		resp.Body.Close()
		return nil, errors.New("the answer is lost")
	}
	return resp, err
}

// arrive delivers what was on its way.
func (l *lossy) arrive(t *testing.T) {
	for _, r := range l.kept {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	l.kept = nil
}

// TestSettle: what came of a change whose answer was lost is found out, once and
// for all, whatever arrives later.
func TestSettle(t *testing.T) {
	f := newFixture(t, Options{})
	line := &lossy{}
	c, err := api.NewClient([]string{f.addr}, api.ClientOptions{HTTPClient: &http.Client{Transport: line}, Retries: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	four := int64(4)
	for name, change := range map[string]struct {
		do    func(ctx context.Context, ino object.InodeID) error
		after string // the file "0123456789", when it is done, and "other" is appended
	}{
		"setattr": {func(ctx context.Context, ino object.InodeID) error {
			_, err := c.SetAttr(ctx, ino, api.SetAttr{Size: &four})
			return err
		}, "0123other"},
		"write": {func(ctx context.Context, ino object.InodeID) error {
			_, _, err := c.Write(ctx, ino, 0, strings.NewReader("mine"), api.WriteOptions{Truncate: true})
			return err
		}, "mineother"},
		"append": {func(ctx context.Context, ino object.InodeID) error {
			_, _, err := c.Append(ctx, ino, strings.NewReader("mine"), api.WriteOptions{})
			return err
		}, "0123456789mineother"},
	} {
		for _, made := range []bool{true, false} {
			line.set(false, false)
			f.want(201, "PUT", "/objects/assets/log", "0123456789")
			n, err := c.Resolve(t.Context(), "assets", "log")
			if err != nil {
				t.Fatal(err)
			}
			line.set(made, !made)
			ctx, kept := c.Keep(t.Context())
			if err := change.do(ctx, n.ID); !object.IsKind(err, object.KindUnavailable) || !kept.Unheard() {
				t.Fatalf("%s: %v, unheard %v", name, err, kept.Unheard())
			}
			f.want(200, "PATCH", "/objects/assets/log?append", "other")
			if _, _, _, err := kept.Settle(t.Context(), n.ID); err == nil {
				t.Fatalf("%s: settled without an answer", name)
			}
			held := len(line.kept)
			line.set(false, false)
			want := change.after
			if !made {
				want = "0123456789other"
				if held != 6 {
					t.Fatalf("%d requests are on their way", held)
				}
				line.kept = line.kept[:3] // the question, too late, would settle it all the same
			}
			for range 2 {
				rec, at, happened, err := kept.Settle(t.Context(), n.ID)
				if err != nil || happened != made || made && rec.ID != n.ID || made && name == "append" && at != 10 {
					t.Fatalf("%s, made %v: settled as %+v at %d, %v, %v", name, made, rec, at, happened, err)
				}
			}
			line.arrive(t)
			kept.Done()
			if got := f.want(200, "GET", "/objects/assets/log", "").body; got != want {
				t.Errorf("%s, made %v: %q, want %q", name, made, got, want)
			}
			// The token is free again: what comes later has others.
			if _, err := c.SetAttr(t.Context(), n.ID, api.SetAttr{Size: new(int64)}); err != nil {
				t.Errorf("%s: the next change: %v", name, err)
			}
		}
	}
}
