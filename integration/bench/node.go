package main

import (
	"fmt"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
)

// node measures how long a start takes, on an empty store and on a filled one,
// and what an idle node costs.
func (b *bench) node() error {
	n, err := b.start("idle")
	if err != nil {
		return err
	}
	defer func() { _ = n.Kill() }() // it is gone after an error
	if err := b.restart(n, "ready, empty store"); err != nil {
		return err
	}
	const watch = 10 * time.Second
	before, err := n.CPUTime()
	if err != nil {
		return err
	}
	time.Sleep(watch) // what is measured is doing nothing
	after, err := n.CPUTime()
	if err != nil {
		return err
	}
	b.row("CPU of an idle node", fmt.Sprintf("%.1f%% of a core", 100*(after-before).Seconds()/watch.Seconds()), "", "", "", "2%")
	return b.fill(n)
}

// fill puts many small objects into the store and starts it again.
func (b *bench) fill(n *harness.Node) error {
	count := 10_000
	if b.full {
		count = 100_000
	}
	c := browser()
	if _, err := ask(c, "POST", n.URL()+"/buckets", []byte(`{"name":"bench"}`)); err != nil {
		return err
	}
	const clients = 64
	start := time.Now()
	work := make(chan int)
	done := make(chan error, clients)
	for range clients {
		go func() {
			var err error
			for i := range work {
				if err == nil {
					_, err = ask(c, "PUT", fmt.Sprintf("%s/objects/bench/%d/%d", n.URL(), i%100, i), []byte("x"))
				}
			}
			done <- err
		}()
	}
	for i := range count {
		work <- i
	}
	close(work)
	for range clients {
		if err := <-done; err != nil {
			return err
		}
	}
	b.row(fmt.Sprintf("PUT of %d small objects", count), fmt.Sprintf("%.0f /s", float64(count)/time.Since(start).Seconds()))
	return b.restart(n, fmt.Sprintf("ready, %d objects", count))
}

// restart kills the node, starts it again and prints how long that took.
func (b *bench) restart(n *harness.Node, measure string) error {
	if err := n.Kill(); err != nil {
		return err
	}
	start := time.Now()
	if err := n.Start(b.ctx); err != nil {
		return err
	}
	b.row(measure, time.Since(start).Round(time.Millisecond).String(), "", "", "", "2s")
	return nil
}
