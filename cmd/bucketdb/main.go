// Command bucketdb is BucketDB whole: the server, the mount, and the verbs that
// look at objects and move them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := untilSignal(context.Background())
	code := run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.LookupEnv)
	stop()
	os.Exit(code)
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is one run of the command line; it returns the exit code.
func run(ctx context.Context, args []string, io streams, env lookupEnv) int {
	root := newRoot(io, env)
	root.SetArgs(normalise(root, args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprint(io.err, complaint(err))
	if errors.As(err, new(*usageError)) {
		return exitUsage
	}
	return exitFailure
}

// untilSignal is a context that ends with the first SIGINT or SIGTERM, so that
// what is under way can finish. The second one exits at once.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
			return
		}
		<-signals
		fmt.Fprintln(os.Stderr, "bucketdb: second signal, exiting at once")
		os.Exit(exitFailure)
	}()
	return ctx, cancel
}
