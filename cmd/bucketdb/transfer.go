package main

import (
	"context"
	"crypto/rand"
	"io"
	"io/fs"
	"mime"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// Sizes of multipart uploads: a file larger than multipartFrom goes up in parts,
// so that a failure costs one part and parts travel side by side.
const (
	multipartFrom = 256 << 20
	partSize      = 64 << 20
	maxParts      = 10000
	partJobs      = 4
	abortTime     = 10 * time.Second
)

// upload stores a local file.
func (cp *copier) upload(ctx context.Context, path string, to location) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	o := api.PutOptions{ContentType: mime.TypeByExtension(filepath.Ext(path))}
	if cp.preserve {
		o.Mode, o.Mtime = uint32(info.Mode().Perm()), info.ModTime()
	}
	if !info.Mode().IsRegular() { // a pipe: its size is not known
		_, err = cp.client.Put(ctx, to.bucket, to.key, f, o)
		return err
	}
	size := info.Size()
	cp.progress.expect(size)
	if size > multipartFrom {
		return cp.uploadParts(ctx, f, size, to, o)
	}
	o.Size = size
	_, err = cp.client.Put(ctx, to.bucket, to.key, &counted{ReadSeeker: io.NewSectionReader(f, 0, size), p: cp.progress}, o)
	return err
}

// partSizeFor is the size of the parts of a file: such that maxParts suffice.
func partSizeFor(size int64) int64 {
	n := int64(partSize)
	for size > n*maxParts {
		n *= 2
	}
	return n
}

// uploadParts stores a large file; where it fails, what was sent is dropped.
func (cp *copier) uploadParts(ctx context.Context, f io.ReaderAt, size int64, to location, o api.PutOptions) (err error) {
	up, err := cp.client.CreateUpload(ctx, to.bucket, to.key, o)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		_ = cp.client.AbortUpload(ctx, to.bucket, to.key, up.ID) // the first error is the one to tell
	}()
	each := partSizeFor(size)
	parts := make([]api.Part, (size+each-1)/each)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partJobs)
	for i := range parts {
		g.Go(func() error {
			off := int64(i) * each
			n := min(each, size-off)
			body := &counted{ReadSeeker: io.NewSectionReader(f, off, n), p: cp.progress}
			p, err := cp.client.PutPart(gctx, to.bucket, to.key, up.ID, i+1, body, n)
			parts[i] = p
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = cp.client.CompleteUpload(ctx, to.bucket, to.key, up.ID, parts, api.Conditions{})
	return err
}

// download writes an object to a local file, which appears whole or not at all.
// size is what the progress bar expects; -1: the answer tells.
func (cp *copier) download(ctx context.Context, from location, path string, size int64) (err error) {
	if size >= 0 {
		cp.progress.expect(size)
	}
	r, err := cp.client.Get(ctx, from.bucket, from.key, api.GetOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	if size < 0 {
		cp.progress.expect(r.Length)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return writeInto(path, io.TeeReader(r, cp.progress)) // a device or pipe is written to, not replaced
	}
	// Not os.CreateTemp: the file is to have the mode that the umask leaves.
	tmp, err := os.OpenFile(filepath.Join(filepath.Dir(path), ".bucketdb-"+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if _, err := io.Copy(tmp, io.TeeReader(r, cp.progress)); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := cp.dress(ctx, from, tmp.Name(), r.Modified); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func writeInto(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// dress gives a downloaded file the object's mode and time where -p asks for them.
func (cp *copier) dress(ctx context.Context, from location, path string, modified time.Time) error {
	if !cp.preserve {
		return nil
	}
	attr, err := cp.client.Attributes(ctx, from.bucket, from.key)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, fs.FileMode(attr.Mode)&fs.ModePerm); err != nil {
		return err
	}
	return os.Chtimes(path, time.Time{}, modified)
}
