// Command bench prints a table of ratios: this BucketDB beside the bare disk,
// bare gin, net/http and go-fuse's loopback on the same machine, in one run.
//
//	go run ./integration/bench [-dir DIR] [-only WORD] [-full] | tee bench.txt
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "reference" { // this program again, as what we compare with
		fail(reference(os.Args[2], os.Args[3]))
		return
	}
	dir := flag.String("dir", "", "`DIR` for the data, on the disk to measure (default: the temporary directory)")
	only := flag.String("only", "", "run only the parts whose name contains `WORD`: disk, rest, put, mount, node, cluster")
	full := flag.Bool("full", false, "the full sizes: 1 GiB files and the whole Go tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fail(run(ctx, *dir, *only, *full))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures all parts in a directory that it removes.
func run(ctx context.Context, parent, only string, full bool) (err error) {
	dir, err := os.MkdirTemp(parent, "bucketdb-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, err := harness.Build(ctx, dir, false)
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, dir: dir, binary: binary, full: full, out: tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)}
	fmt.Printf("BucketDB bench, %s, %s, %d CPUs\n\n", time.Now().Format(time.DateOnly), runtime.Version(), runtime.NumCPU())
	b.row("measure", "bucketdb", "beside", "what", "ratio", "goal")
	for _, part := range []struct {
		name string
		run  func() error
	}{{"rest", b.rest}, {"put", b.puts}, {"mount", b.mounts}, {"node", b.node}, {"cluster", b.cluster}} {
		if !strings.Contains(part.name, only) {
			continue
		}
		if err := part.run(); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", part.name, err), b.out.Flush())
		}
		if err := b.out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// bench is one run.
type bench struct {
	ctx    context.Context
	dir    string
	binary string
	full   bool
	out    *tabwriter.Writer
}

// row prints a line of the table.
func (b *bench) row(cells ...string) { fmt.Fprintln(b.out, strings.Join(cells, "\t")) }

// rate prints a line in which more is better.
func (b *bench) rate(measure string, ours, theirs float64, unit, what, goal string) {
	b.row(measure, fmt.Sprintf("%.0f %s", ours, unit), fmt.Sprintf("%.0f %s", theirs, unit), what, fmt.Sprintf("%.2f", ours/theirs), goal)
}

// times prints a line in which less is better.
func (b *bench) times(measure string, ours, theirs time.Duration, what, goal string) {
	b.row(measure, ours.Round(time.Millisecond).String(), theirs.Round(time.Millisecond).String(), what,
		fmt.Sprintf("%.2f", ours.Seconds()/theirs.Seconds()), goal)
}

// sub makes a directory below the run's.
func (b *bench) sub(name string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.MkdirAll(path, 0o755)
}

// start runs a fresh node with the default settings.
func (b *bench) start(name string, args ...string) (*harness.Node, error) {
	dir, err := b.sub(name)
	if err != nil {
		return nil, err
	}
	n, err := harness.NewNode(b.binary, dir, append([]string{"--log-level", "warn"}, args...)...)
	if err != nil {
		return nil, err
	}
	return n, n.Start(b.ctx)
}
