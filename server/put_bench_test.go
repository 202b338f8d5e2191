package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication"
)

// benchNode serves a fresh node with a bucket and returns its base URL.
func benchNode(b *testing.B) string {
	b.Helper()
	node, err := replication.Open(context.Background(), replication.Config{MetadataPath: b.TempDir(), StoragePaths: []string{b.TempDir()}, Compression: "snappy"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { node.Close() })
	s, err := New(node, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := node.CreateBucket(context.Background(), "bench", ""); err != nil {
		b.Fatal(err)
	}
	return serveBench(b, s.Handler())
}

func benchNoise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b) // never fails
	return b
}

func benchPut(c *http.Client, url string, body []byte) error {
	req, err := http.NewRequest("PUT", url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%s: %s", resp.Status, raw)
	}
	return err
}

// benchDisk writes and syncs size bytes in each round: to the end of one file
// (fresh false), or to a new one.
func benchDisk(b *testing.B, size int, fresh bool) {
	body, dir := benchNoise(size), b.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { f.Close() }()
	b.SetBytes(int64(size))
	for i := 0; b.Loop(); i++ {
		if fresh {
			f.Close()
			if f, err = os.Create(filepath.Join(dir, fmt.Sprint(i%4))); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := f.Write(body); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut64M is the PUT of 64 MiB by one client, beside the writing of one
// file of that size and its fsync; the goal is 0.7 of its rate.
func BenchmarkPut64M(b *testing.B) {
	const size = 64 << 20
	b.Run("disk", func(b *testing.B) { benchDisk(b, size, true) })
	b.Run("rest", func(b *testing.B) {
		url, body := benchNode(b), benchNoise(size)
		c := &http.Client{Transport: &http.Transport{}}
		defer c.CloseIdleConnections()
		b.SetBytes(size)
		for i := 0; b.Loop(); i++ {
			if err := benchPut(c, fmt.Sprintf("%s/objects/bench/large%d", url, i%4), body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPut4K is durable 4 KiB PUTs by 64 clients, beside one thread's write
// and fsync of 4 KiB; the goal is 4 times its rate.
func BenchmarkPut4K(b *testing.B) {
	const size, clients = 4 << 10, 64
	b.Run("disk", func(b *testing.B) { benchDisk(b, size, false) })
	b.Run("rest", func(b *testing.B) {
		url, body := benchNode(b), benchNoise(size)
		c := &http.Client{Transport: &http.Transport{MaxIdleConns: clients, MaxIdleConnsPerHost: clients}}
		defer c.CloseIdleConnections()
		b.SetBytes(size)
		b.ReportAllocs()
		var next atomic.Int64
		var wg sync.WaitGroup
		b.ResetTimer()
		for range clients {
			wg.Go(func() {
				for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
					if err := benchPut(c, fmt.Sprintf("%s/objects/bench/64/%d", url, i), body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}
