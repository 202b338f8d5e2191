package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
)

const benchSize = 4096

// serveBench starts h on loopback and returns its base URL.
func serveBench(b *testing.B, h http.Handler) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	b.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String()
}

func benchGet(b *testing.B, url, method string) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, _ := http.NewRequest(method, url, nil)
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			n, _ := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 || (method == "GET" && n != benchSize) {
				b.Errorf("%d, %d bytes", resp.StatusCode, n)
				return
			}
		}
	})
}

// BenchmarkGet4K compares a 4 KiB GET and HEAD with a bare gin handler that
// answers constant bytes; the goal is half its rate.
func BenchmarkGet4K(b *testing.B) {
	body := []byte(strings.Repeat("x", benchSize))
	b.Run("bare-gin", func(b *testing.B) {
		gin.SetMode(gin.ReleaseMode)
		e := gin.New()
		e.GET("/x", func(c *gin.Context) { c.Data(200, "application/octet-stream", body) })
		benchGet(b, serveBench(b, e)+"/x", "GET")
	})
	node, err := replication.Open(context.Background(), replication.Config{MetadataPath: b.TempDir(), StoragePaths: []string{b.TempDir()}, Partitions: 4})
	if err != nil {
		b.Fatal(err)
	}
	defer node.Close()
	s, err := New(node, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := node.CreateBucket(context.Background(), "bench", ""); err != nil {
		b.Fatal(err)
	}
	if _, err := node.Put(context.Background(), "bench", "x", strings.NewReader(string(body)), replication.PutOptions{Size: benchSize}); err != nil {
		b.Fatal(err)
	}
	url := serveBench(b, s.Handler())
	b.Run("get", func(b *testing.B) { benchGet(b, url+"/objects/bench/x", "GET") })
	b.Run("head", func(b *testing.B) { benchGet(b, url+"/objects/bench/x", "HEAD") })
}
