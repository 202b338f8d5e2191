package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// lockClient is a client of its own whose session has a lease.
func (f *fixture) lockClient(o api.ClientOptions) *api.Client {
	f.t.Helper()
	c, err := api.NewClient([]string{f.addr}, o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	if lease, err := c.OpenLease(f.t.Context()); err != nil || lease != 30*time.Second {
		f.t.Fatal(lease, err)
	}
	return c
}

func (f *fixture) file(name string) object.InodeID {
	f.t.Helper()
	o, err := f.client.Put(f.t.Context(), "assets", name, strings.NewReader("x"), api.PutOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return object.InodeID(o.Inode)
}

func tryLock(t *testing.T, c *api.Client, ino object.InodeID, l object.Lock) (granted bool, conflict *object.Lock) {
	t.Helper()
	k := c.Locking(ino, l)
	defer k.Done()
	granted, conflict, err := k.Try(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return granted, conflict
}

// TestLocks: locks through the client, whole: ranges and owners arrive exactly, a wait ends
// when its turn comes, a canceled one never is granted, a closed session does nothing more.
func TestLocks(t *testing.T) {
	f := newFixture(t, Options{})
	ino := f.file("locked")
	a, b := f.lockClient(api.ClientOptions{}), f.lockClient(api.ClientOptions{})
	k := object.Lock{Class: object.LockPOSIX, Owner: 1<<64 - 1, Exclusive: true, First: 1<<62 + 1, Last: object.LastByte, PID: 77}
	if granted, _ := tryLock(t, a, ino, k); !granted {
		t.Fatal("refused")
	}
	granted, conflict := tryLock(t, b, ino, k)
	want := k
	want.Session = a.Session()
	if granted || conflict == nil || *conflict != want {
		t.Fatalf("conflict %+v, want %+v", conflict, want)
	}
	if c, err := b.TestLock(t.Context(), ino, k); err != nil || c == nil || *c != want {
		t.Fatal(c, err)
	}
	if c, err := a.TestLock(t.Context(), ino, k); err != nil || c != nil {
		t.Fatalf("its own lock is in its way: %+v, %v", c, err)
	}
	whole := object.Lock{Class: object.LockFlock, Owner: 5, Exclusive: true, Last: object.LastByte}
	if granted, _ := tryLock(t, b, ino, whole); !granted {
		t.Fatal("flock meets a lock of a range")
	}

	quit := b.Locking(ino, k)
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		_, err := quit.Wait(ctx)
		waited <- err
	}()
	cancel()
	if err := <-waited; !object.IsKind(err, object.KindCanceled) {
		t.Fatal(err)
	}
	if granted, err := quit.Cancel(t.Context()); err != nil || granted {
		t.Fatal(granted, err)
	}
	if _, err := quit.Wait(t.Context()); !object.IsKind(err, object.KindCanceled) {
		t.Fatal(err)
	}
	quit.Done()

	turn := b.Locking(ino, k)
	defer turn.Done()
	got := make(chan error, 1)
	go func() {
		for {
			if granted, err := turn.Wait(t.Context()); granted || err != nil {
				got <- err
				return
			}
		}
	}()
	if err := a.Unlock(t.Context(), ino, k); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a lock that was given up is not granted to who waits")
	}
	if granted, err := turn.Cancel(t.Context()); err != nil || !granted {
		t.Fatalf("what was granted before is told: %v, %v", granted, err)
	}
	if granted, _ := tryLock(t, a, ino, k); granted {
		t.Fatal("it is granted twice")
	}

	for range 2 {
		if err := b.CloseLease(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if granted, _ := tryLock(t, a, ino, k); granted {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the locks of a session outlive it")
		}
	}
	for what, err := range map[string]error{
		"renew": func() error { _, err := b.RenewLease(t.Context()); return err }(), "open": func() error { _, err := b.OpenLease(t.Context()); return err }(),
		"unlock": b.Unlock(t.Context(), ino, whole),
		"write": func() error {
			_, _, err := b.Write(t.Context(), ino, 0, strings.NewReader("late"), api.WriteOptions{})
			return err
		}(),
		"lock": func() error { k := b.Locking(ino, k); defer k.Done(); _, _, err := k.Try(t.Context()); return err }(),
	} {
		if !object.IsKind(err, object.KindSessionEnded) {
			t.Errorf("%s after the session's end: %v", what, err)
		}
	}
}

// TestNewSession: a client whose session was ended goes on under another one. What it had
// begun stays with the old one, and can be told apart: it happened, or it never will.
func TestNewSession(t *testing.T) {
	f := newFixture(t, Options{})
	ino := f.file("file")
	line := &lossy{}
	c := f.lockClient(api.ClientOptions{HTTPClient: &http.Client{Transport: line}, Retries: 2})
	old := c.Session()
	write := func(ctx context.Context, data string) error {
		_, _, err := c.Append(ctx, ino, strings.NewReader(data), api.WriteOptions{})
		return err
	}
	heard, happened := c.Keep(t.Context())
	line.set(true, false)
	if err := write(heard, "1"); err == nil {
		t.Fatal("no error")
	}
	late, never := c.Keep(t.Context())
	line.set(false, true) // it is on its way, several times
	if err := write(late, "2"); err == nil {
		t.Fatal("no error")
	}
	line.set(false, false)
	if err := c.CloseLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := c.SetAttr(t.Context(), ino, api.SetAttr{}); object.IsKind(err, object.KindSessionEnded) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed session goes on")
		}
	}
	if err := c.NewSession(); err != nil || c.Session() == old {
		t.Fatal(c.Session(), err)
	}
	line.arrive(t)
	if err := write(t.Context(), "3"); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[*api.Kept]bool{happened: true, never: false} {
		if _, _, did, err := k.Settle(t.Context(), ino); err != nil || did != want {
			t.Errorf("it happened: %v (%v), want %v", did, err, want)
		}
		k.Done()
	}
	if got := f.want(200, "GET", "/objects/assets/file", ""); got.body != "x13" {
		t.Errorf("the file has %q", got.body)
	}
	if _, err := c.OpenLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	if granted, _ := tryLock(t, c, ino, object.Lock{Class: object.LockFlock, Exclusive: true, Last: object.LastByte}); !granted {
		t.Fatal("refused")
	}
}

// TestLockWhoseAnswerIsLost is taken once, and what was given up stays so whatever arrives later.
func TestLockWhoseAnswerIsLost(t *testing.T) {
	f := newFixture(t, Options{})
	ino := f.file("locked")
	line := &lossy{}
	a, b := f.lockClient(api.ClientOptions{HTTPClient: &http.Client{Transport: line}, Retries: 2}), f.lockClient(api.ClientOptions{})
	k := object.Lock{Class: object.LockPOSIX, Owner: 1, Exclusive: true, Last: 9}
	lock := a.Locking(ino, k)
	defer lock.Done()
	line.set(true, false)
	if _, _, err := lock.Try(t.Context()); !object.IsKind(err, object.KindUnavailable) {
		t.Fatal(err)
	}
	line.set(false, false)
	if granted, err := lock.Cancel(t.Context()); err != nil || !granted {
		t.Fatalf("it had been granted: %v, %v", granted, err)
	}
	second := a.Locking(ino, k)
	defer second.Done()
	line.set(false, true) // it is on its way, several times
	if _, _, err := second.Try(t.Context()); err == nil {
		t.Fatal("no error")
	}
	line.set(false, false)
	if granted, err := second.Cancel(t.Context()); err != nil || granted {
		t.Fatal(granted, err)
	}
	if err := a.Unlock(t.Context(), ino, k); err != nil {
		t.Fatal(err)
	}
	line.arrive(t)
	if granted, conflict := tryLock(t, b, ino, k); !granted {
		t.Fatalf("a request that came late took %+v", conflict)
	}
}

// TestLockContract holds every answer about locks against the contract.
func TestLockContract(t *testing.T) {
	f := newFixture(t, Options{})
	locks := "/fs/inodes/" + f.file("locked").String() + "/locks"
	seq := 0
	session := func(of int) []string {
		seq++
		return []string{fmt.Sprintf("Bucketdb-Session: %032x", of), fmt.Sprintf("Bucketdb-Seq: %d", seq), "Content-Type: application/json"}
	}
	lock := `{"class":"posix","owner":"18446744073709551615","exclusive":true,"first":0,"last":9}`
	f.want(412, "POST", locks, lock, session(1)...)
	for of := 1; of <= 2; of++ {
		a := f.want(200, "POST", fmt.Sprintf("/fs/sessions/%032x", of), "")
		var lease api.Lease
		if err := json.Unmarshal([]byte(a.body), &lease); err != nil || lease.LeaseMS != 30_000 {
			t.Fatal(a.body, err)
		}
		f.want(200, "PUT", fmt.Sprintf("/fs/sessions/%032x", of), "")
	}
	f.want(412, "PUT", fmt.Sprintf("/fs/sessions/%032x", 3), "")
	f.want(400, "POST", "/fs/sessions/nonsense", "")
	f.want(200, "POST", locks, lock, session(1)...)
	f.want(200, "POST", locks, lock, session(2)...)
	waits := strings.Replace(lock, "{", `{"wait_ms":1,`, 1)
	f.want(200, "POST", locks+"/wait", waits, session(2)...)
	f.want(200, "POST", locks+"/cancel", "", session(2)...)
	f.want(400, "POST", locks, waits, session(2)...)
	f.want(400, "POST", locks+"/wait", lock, session(2)...)
	f.want(400, "POST", locks+"/wait", strings.Replace(lock, "{", `{"wait_ms":999999,`, 1), session(2)...)
	f.want(400, "POST", locks, lock) // nobody's
	f.want(400, "POST", locks, strings.Replace(lock, "posix", "mandatory", 1), session(2)...)
	f.want(400, "POST", locks, strings.Replace(lock, `"first":0`, `"first":10`, 1), session(2)...)
	f.want(400, "POST", locks, strings.Replace(lock, "posix", "flock", 1), session(2)...)
	f.want(200, "GET", locks+"?class=posix&owner=1&first=5", "")
	f.want(400, "GET", locks+"?class=posix&owner=-1", "")
	f.want(400, "GET", locks+"?owner=1", "")
	f.want(400, "GET", locks+"?class=posix&owner=1&first=x", "")
	f.want(400, "DELETE", locks+"?class=posix&owner=1", "")
	f.want(204, "DELETE", locks+"?class=posix&owner=18446744073709551615", "", session(1)...)
	f.want(410, "GET", "/fs/inodes/"+object.NewInodeID(1, 1<<30, 0).String()+"/locks?class=posix&owner=1", "")
	f.want(204, "DELETE", fmt.Sprintf("/fs/sessions/%032x", 1), "")
	f.want(409, "PUT", fmt.Sprintf("/fs/sessions/%032x", 1), "")
}

// TestLockDefaults: what is left out means the same in a body and in a query.
func TestLockDefaults(t *testing.T) {
	f := newFixture(t, Options{})
	ino := f.file("locked")
	locks := "/fs/inodes/" + ino.String() + "/locks"
	f.want(200, "POST", fmt.Sprintf("/fs/sessions/%032x", 1), "")
	f.want(200, "POST", fmt.Sprintf("/fs/sessions/%032x", 2), "")
	seq := 0
	ask := func(of int, path, lock string) api.LockAnswer {
		t.Helper()
		seq++
		r := f.want(200, "POST", path, lock, fmt.Sprintf("Bucketdb-Session: %032x", of), fmt.Sprintf("Bucketdb-Seq: %d", seq), "Content-Type: application/json")
		return lockAnswerOf(t, r.body)
	}
	for _, class := range []string{"posix", "flock"} {
		if a := ask(1, locks, `{"class":"`+class+`","owner":"1"}`); !a.Granted {
			t.Fatalf("%s: %+v", class, a)
		}
		for what, a := range map[string]api.LockAnswer{
			"body":  ask(2, locks, `{"class":"`+class+`","owner":"1","exclusive":true}`),
			"wait":  ask(2, locks+"/wait", `{"class":"`+class+`","owner":"1","exclusive":true,"wait_ms":1}`),
			"query": lockAnswerOf(t, f.want(200, "GET", locks+"?owner=1&exclusive&class="+class, "").body),
		} {
			if a.Granted || a.Conflict == nil || a.Conflict.First != 0 || a.Conflict.Last != object.LastByte || a.Conflict.Exclusive {
				t.Errorf("%s of a lock by %s: %+v", class, what, a)
			}
		}
	}
	for query, want := range map[string]bool{"": true, "&exclusive=false": true, "&exclusive=0": true, "&exclusive": false, "&exclusive=": false, "&exclusive=true": false, "&exclusive=1": false} {
		if a := lockAnswerOf(t, f.want(200, "GET", locks+"?class=posix&owner=1"+query, "").body); a.Granted != want {
			t.Errorf("%q: granted %v", query, a.Granted)
		}
	}
	f.want(400, "GET", locks+"?class=posix&owner=1&exclusive=perhaps", "")
	// One that is given counts, also where it is 0.
	c := f.lockClient(api.ClientOptions{})
	shared := object.Lock{Class: object.LockPOSIX, Owner: 2}
	if granted, conflict := tryLock(t, c, ino, shared); !granted {
		t.Fatal(conflict)
	}
	a := lockAnswerOf(t, f.want(200, "GET", locks+fmt.Sprintf("?class=posix&owner=1&exclusive&session=%032x", 1), "").body)
	if a.Conflict == nil || a.Conflict.Owner != 2 || a.Conflict.Last != 0 {
		t.Errorf("the client's lock of byte 0 is %+v", a.Conflict)
	}
}

func lockAnswerOf(t *testing.T, body string) (a api.LockAnswer) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		t.Fatal(body, err)
	}
	return a
}

// TestShutdownEndsWaits: who waits for a lock does not hold up a server that stops, and is
// told to ask another one.
func TestShutdownEndsWaits(t *testing.T) {
	f := newFixture(t, Options{})
	ino := f.file("locked")
	a, b := f.lockClient(api.ClientOptions{}), f.lockClient(api.ClientOptions{Retries: -1})
	k := object.Lock{Class: object.LockFlock, Owner: 1, Exclusive: true, Last: object.LastByte}
	if granted, _ := tryLock(t, a, ino, k); !granted {
		t.Fatal("refused")
	}
	waits := b.Locking(ino, k)
	defer waits.Done()
	done := make(chan error, 1)
	go func() {
		_, err := waits.Wait(t.Context())
		done <- err
	}()
	for deadline := time.Now().Add(time.Minute); f.s.streams.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
	if err := f.s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !object.IsKind(err, object.KindUnavailable) {
		t.Fatalf("who waited was told: %v", err)
	}
}
