package api

import (
	"net/http"
	"slices"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestLongWaitTakesAnotherToken: else the results of everything that the client does while
// it waits would be kept.
func TestLongWaitTakesAnotherToken(t *testing.T) {
	var seen []string
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.URL.Path[len("/fs/inodes/0000000000000007/locks/"):]+" "+r.Header.Get(HeaderSeq)+" "+r.Header.Get(HeaderAck))
		if len(seen) == 5 {
			_, _ = w.Write([]byte(`{"granted":true}`))
			return
		}
		_, _ = w.Write([]byte(`{"granted":false}`))
	})
	l := c.Locking(7, object.Lock{Class: object.LockFlock, Last: object.LastByte})
	for range 2 {
		if granted, err := l.Wait(t.Context()); err != nil || granted {
			t.Fatal(granted, err)
		}
	}
	l.most = 0
	if granted, err := l.Wait(t.Context()); err != nil || granted {
		t.Fatal(granted, err)
	}
	if granted, err := l.Wait(t.Context()); err != nil || !granted { // by the time it is canceled it was granted
		t.Fatal(granted, err)
	}
	if want := []string{"wait 1 ", "wait 1 ", "cancel 1 ", "wait 2 1", "cancel 2 1"}; !slices.Equal(seen, want) {
		t.Fatalf("asked %q, want %q", seen, want)
	}
}
