package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// stallListener accepts connections on which the machine stands still before
// each answer until the read deadline that is set has passed, if one is near.
type stallListener struct{ net.Listener }

func (l stallListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &stallConn{Conn: conn}
	c.passed.L = &c.mu
	return c, nil
}

type stallConn struct {
	net.Conn
	mu       sync.Mutex
	passed   sync.Cond
	deadline time.Time // the one that reads have now
}

func (c *stallConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.passed.Broadcast()
	return c.Conn.SetReadDeadline(t)
}

func (c *stallConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.mu.Lock()
		c.deadline = time.Time{}
		c.passed.Broadcast()
		c.mu.Unlock()
	}
	return n, err
}

func (c *stallConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	for time.Until(c.deadline) > 0 && time.Until(c.deadline) <= drainTimeout || !c.deadline.IsZero() && time.Until(c.deadline) <= 0 {
		c.passed.Wait()
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// A machine that stands still while an answer is written must not make the next
// requests of the connection look as if their client had left (a 499 was seen in
// one of ten benches).
func TestStallBeforeAnAnswerCostsNoLaterRequest(t *testing.T) {
	f := newFixture(t, Options{IdleTimeout: 400 * time.Millisecond})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = f.s.Serve(stallListener{l}) }() // the fixture shuts it down
	for name, first := range map[string]struct {
		header string
		status int
	}{
		"a body that is read":    {"", 201},
		"a body that is refused": {"Content-Encoding: gzip\r\n", 501},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, l.Addr().String())
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(conn)
			body := strings.Repeat("x", 4096)
			put := func(key, header string) *http.Response {
				fmt.Fprintf(conn, "PUT /objects/assets/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s", key, len(body), header, body)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				return resp
			}
			if resp := put("first", first.header); resp.StatusCode != first.status {
				t.Fatalf("the first answer is %d, want %d", resp.StatusCode, first.status)
			}
			second := put("second", "")
			if second.StatusCode != 200 && second.StatusCode != 201 {
				t.Fatalf("the second answer is %d %v", second.StatusCode, second.Header)
			}
			if second.Close {
				t.Error("the second answer closes the connection")
			}
			if _, err := f.client.Head(context.Background(), "assets", "second", api.Conditions{}); err != nil {
				t.Error(err)
			}
		})
	}
}
