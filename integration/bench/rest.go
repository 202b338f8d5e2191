package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/server/api"
)

const (
	largeSize = 64 << 20
	readers   = 16
)

// load runs do from many goroutines for a while and returns how many per second.
func load(ctx context.Context, clients int, d time.Duration, do func(worker, i int) error) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var count atomic.Int64
	var once sync.Once
	var failed error
	var wg sync.WaitGroup
	start := time.Now()
	for w := range clients {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := do(w, i); err != nil {
					once.Do(func() { failed = err })
					cancel()
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(count.Load()) / time.Since(start).Seconds(), failed
}

// browser is the HTTP client that all servers are asked with.
func browser() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024, DisableCompression: true,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10}}
}

// ask sends one request and reads the answer to its end.
func ask(c *http.Client, method, url string, body []byte) (int64, error) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = errors.New(method + " " + url + ": " + resp.Status)
	}
	return n, err
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b) // never fails
	return b
}

// rest measures small reads beside bare gin, large ones beside http.FileServer.
func (b *bench) rest() error {
	n, err := b.start("rest")
	if err != nil {
		return err
	}
	defer n.Kill()
	c := browser()
	if _, err := ask(c, "POST", n.URL()+"/buckets", []byte(`{"name":"bench"}`)); err != nil {
		return err
	}
	for name, size := range map[string]int{"small": smallSize, "large": largeSize} {
		if _, err := ask(c, "PUT", n.URL()+"/objects/bench/"+name, noise(size)); err != nil {
			return err
		}
	}
	addr, stop, err := startGin(b.ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, method := range []string{"GET", "HEAD"} {
		var rates [2]float64
		for i, host := range []string{n.API, addr} {
			url := "http://" + host + "/objects/bench/small"
			get := func(int, int) error { _, err := ask(c, method, url, nil); return err }
			if _, err := load(b.ctx, readers, time.Second, get); err != nil { // warm up
				return err
			}
			if rates[i], err = load(b.ctx, readers, 4*time.Second, get); err != nil {
				return err
			}
		}
		b.rate("4 KiB "+method, rates[0], rates[1], "/s", "bare gin, constant bytes", "0.5")
	}
	return b.largeGet(n, c)
}

func (b *bench) largeGet(n *harness.Node, c *http.Client) error {
	dir, err := b.sub("files")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), noise(largeSize), 0o600); err != nil {
		return err
	}
	addr, stop, err := startFiles(b.ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	var rates [2]float64
	for i, url := range []string{n.URL() + "/objects/bench/large", "http://" + addr + "/large"} {
		rate, err := load(b.ctx, 1, 4*time.Second, func(int, int) error {
			got, err := ask(c, "GET", url, nil)
			if err == nil && got != largeSize {
				err = fmt.Errorf("%s has %d bytes", url, got)
			}
			return err
		})
		if err != nil {
			return err
		}
		rates[i] = rate * largeSize / (1 << 20)
	}
	b.rate("64 MiB GET", rates[0], rates[1], "MiB/s", "http.FileServer", "0.8")
	return nil
}

// puts measures durable writes beside the bare disk.
func (b *bench) puts() error {
	syncs, err := b.fsyncRate()
	if err != nil {
		return err
	}
	n, err := b.start("puts")
	if err != nil {
		return err
	}
	defer n.Kill()
	c := browser()
	if _, err := ask(c, "POST", n.URL()+"/buckets", []byte(`{"name":"bench"}`)); err != nil {
		return err
	}
	goals := map[int]string{64: "4"}
	for _, clients := range []int{1, 16, 64, 256} {
		body := noise(smallSize)
		rate, err := load(b.ctx, clients, 5*time.Second, func(w, i int) error {
			_, err := ask(c, "PUT", fmt.Sprintf("%s/objects/bench/%d/%d-%d", n.URL(), clients, w, i), body)
			return err
		})
		if err != nil {
			return err
		}
		b.rate(fmt.Sprintf("4 KiB PUT, %d clients", clients), rate, syncs, "/s", "write + fsync, one thread", goals[clients])
	}
	return b.largePut(n)
}

// fsyncRate is how often a second one thread appends 4 KiB to a file and syncs.
func (b *bench) fsyncRate() (float64, error) {
	f, err := os.Create(filepath.Join(b.dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := noise(smallSize)
	return load(b.ctx, 1, 3*time.Second, func(int, int) error {
		if _, err := f.Write(block); err != nil {
			return err
		}
		return f.Sync()
	})
}

func (b *bench) largePut(n *harness.Node) error {
	data := noise(largeSize)
	disk, err := load(b.ctx, 1, 5*time.Second, func(_, i int) error {
		f, err := os.Create(filepath.Join(b.dir, fmt.Sprintf("seq%d", i%4)))
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Sync()
	})
	if err != nil {
		return err
	}
	client, err := n.Client(api.ClientOptions{})
	if err != nil {
		return err
	}
	defer client.Close()
	ours, err := load(b.ctx, 1, 5*time.Second, func(_, i int) error {
		_, err := client.Put(b.ctx, "bench", fmt.Sprintf("large%d", i%4), bytes.NewReader(data), api.PutOptions{})
		return err
	})
	if err != nil {
		return err
	}
	b.rate("64 MiB PUT", ours*64, disk*64, "MiB/s", "write + fsync", "0.7")
	return nil
}
