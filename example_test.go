package bucketdb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/skshohagmiah/bucketdb"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// open starts a store in a directory of its own, for the examples.
func open() (*bucketdb.BucketDB, func()) {
	dir, err := os.MkdirTemp("", "bucketdb-example-")
	if err != nil {
		log.Fatal(err)
	}
	cfg := bucketdb.DefaultConfig()
	cfg.StoragePath = filepath.Join(dir, "chunks")
	cfg.MetadataPath = filepath.Join(dir, "metadata")
	db, err := bucketdb.NewBucketDB(cfg)
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		if err := errors.Join(db.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "bucketdb-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	cfg := bucketdb.DefaultConfig()
	cfg.StoragePath = filepath.Join(dir, "chunks")
	cfg.MetadataPath = filepath.Join(dir, "metadata")
	db, err := bucketdb.NewBucketDB(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if err := db.CreateBucket("assets", "admin"); err != nil {
		log.Fatal(err)
	}
	opts := &bucketdb.PutObjectOptions{ContentType: "text/plain", Metadata: map[string]string{"version": "1.0"}}
	if err := db.PutObject("assets", "hello.txt", []byte("Hello, BucketDB!"), opts); err != nil {
		log.Fatal(err)
	}
	data, err := db.GetObject("assets", "hello.txt", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", data)
	// Output: Hello, BucketDB!
}

func ExampleBucketDB_GetObject_range() {
	db, done := open()
	defer done()
	if err := db.CreateBucket("assets", "admin"); err != nil {
		log.Fatal(err)
	}
	if err := db.PutObject("assets", "digits", []byte("0123456789"), nil); err != nil {
		log.Fatal(err)
	}
	middle, err := db.GetObject("assets", "digits", &bucketdb.GetObjectOptions{RangeStart: 3, RangeEnd: 7})
	if err != nil {
		log.Fatal(err)
	}
	last, err := db.GetObject("assets", "digits", &bucketdb.GetObjectOptions{RangeStart: -2})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s\n", middle, last)
	// Output: 3456 89
}

func ExampleBucketDB_GetObjectAsStream() {
	db, done := open()
	defer done()
	if err := db.CreateBucket("logs", "admin"); err != nil {
		log.Fatal(err)
	}
	body := strings.NewReader(strings.Repeat("a line\n", 100_000))
	if err := db.PutObjectFromStream("logs", "today.log", body, body.Size(), nil); err != nil {
		log.Fatal(err)
	}
	r, info, err := db.GetObjectAsStream("logs", "today.log", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, n == info.Size)
	// Output: 700000 true
}

func ExampleBucketDB_AllObjects() {
	db, done := open()
	defer done()
	if err := db.CreateBucket("photos", "admin"); err != nil {
		log.Fatal(err)
	}
	for _, key := range []string{"2026/b.jpg", "2026/a.jpg", "2025/z.jpg"} {
		if err := db.PutObject("photos", key, []byte(key), nil); err != nil {
			log.Fatal(err)
		}
	}
	for obj, err := range db.AllObjects(context.Background(), "photos", "2026/") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(obj.Key, obj.Size)
	}
	// Output:
	// 2026/a.jpg 10
	// 2026/b.jpg 10
}

// Two writers want to create one object: the condition is judged where the
// write happens, so exactly one of them does.
func ExamplePutObjectOptions_ifNoneMatch() {
	db, done := open()
	defer done()
	if err := db.CreateBucket("locks", "admin"); err != nil {
		log.Fatal(err)
	}
	create := &bucketdb.PutObjectOptions{IfNoneMatch: "*"}
	fmt.Println(db.PutObject("locks", "leader", []byte("first"), create) == nil)
	err := db.PutObject("locks", "leader", []byte("second"), create)
	fmt.Println(object.IsKind(err, object.KindPrecondition))
	// Output:
	// true
	// true
}
