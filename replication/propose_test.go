package replication

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestDeadline(t *testing.T) {
	d := &deadline{Context: t.Context(), after: time.Millisecond}
	select {
	case <-d.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it never ends")
	}
	if _, ok := d.Deadline(); !ok || !errors.Is(d.Err(), context.DeadlineExceeded) {
		t.Fatal(d.Err())
	}
	d.end()

	d = &deadline{Context: t.Context(), after: time.Hour}
	if d.Err() != nil {
		t.Fatal(d.Err())
	}
	d.end()
	if !errors.Is(d.Err(), context.Canceled) {
		t.Fatal("its timer is left behind:", d.Err())
	}

	d = &deadline{Context: t.Context(), after: time.Hour}
	d.end()
	if d.armed != t.Context() || d.cancel != nil || d.Err() != nil {
		t.Fatal("a timer that nobody asked for")
	}

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	d = &deadline{Context: gone, after: time.Hour}
	defer d.end()
	if !errors.Is(d.Err(), context.Canceled) {
		t.Fatal("a caller that has left:", d.Err())
	}
}
