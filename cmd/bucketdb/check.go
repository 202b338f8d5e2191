package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// checkCommand has a node compare its store with its invariants.
func (a *app) checkCommand() *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare the store of the node that answers with its invariants",
		Long: `Compare the store of the node that answers with its invariants: every name leads to an
inode and every inode has its names, counts are right, and every chunk on record is on
disk and the other way round. It reads all metadata and no data; nothing is changed. The
node goes on serving, and needs up to 64 MiB more memory meanwhile.

The report says of each kind of finding what it means and what to do. For scripts, the
kinds are also in "findings" of --json:
  missing-data  a chunk is on record, its file is not on disk
  references    a chunk is counted as used more or less often than it is
  names         names, inodes, types and link counts do not fit together
  stray-data    a chunk's file is on disk, no record names it; the node drops it by itself
  not-checked   a node did not answer, so what it has is not known

The exit code is 0 when all invariants hold, 1 when one does not or the check could not
be made, 2 when the command line is wrong.`,
		Args: asUsage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usagef("bucketdb cluster check", "--timeout is %s; it must be more than 0", timeout)
			}
			r, err := a.check(c.Context(), timeout)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(r)
			} else {
				err = a.printCheck(r)
			}
			if err != nil {
				return err
			}
			return verdict(r)
		},
	}
	a.endpointFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this `TIME`")
	return c
}

// check asks once: a check that takes too long would not be shorter the second time.
func (a *app) check(ctx context.Context, timeout time.Duration) (api.CheckResult, error) {
	client, err := a.client(api.ClientOptions{Retries: -1, AnswerTimeout: timeout + time.Second})
	if err != nil {
		return api.CheckResult{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := client.Check(ctx)
	switch {
	case object.IsKind(err, object.KindTimeout):
		err = advise(err, "The check was given up, and the node ends it. Give it longer with --timeout; large stores take minutes.")
	case object.IsKind(err, object.KindBusy):
		err = advise(err, "Wait until the other check is done, then try again.")
	}
	return r, err
}

// printCheck is the report as people read it.
func (a *app) printCheck(r api.CheckResult) error {
	w := tabwriter.NewWriter(a.io.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "node\t%s\n", r.Node)
	fmt.Fprintf(w, "looked at\t%d inodes, %d names, %d extents, %d chunks\n", r.Inodes, r.Dentries, r.Extents, r.Chunks)
	fmt.Fprintf(w, "meanwhile\t%d changes under way, %d removals not finished (no faults)\n", r.Open, r.Garbage)
	result := "every invariant holds"
	if !r.OK {
		result = problemsText(r)
	}
	fmt.Fprintf(w, "result\t%s\n", result)
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range r.Findings {
		if err := a.printFinding(f); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printFinding(f api.Finding) error {
	if _, err := fmt.Fprintf(a.io.out, "\n%s (%s)\n  %s\n  What to do: %s\n", f.Kind, countOf(f), f.Meaning, f.Advice); err != nil {
		return err
	}
	for _, p := range f.Problems {
		if _, err := fmt.Fprintf(a.io.out, "    %s\n", p); err != nil {
			return err
		}
	}
	return nil
}

func problemsText(r api.CheckResult) string {
	n, uncounted := r.Problems(), false
	for _, f := range r.Findings {
		n += f.Unlisted
		uncounted = uncounted || f.Truncated && f.Unlisted == 0
	}
	switch {
	case uncounted:
		return fmt.Sprintf("%d or more problems", n)
	case n == 1:
		return "1 problem"
	}
	return fmt.Sprintf("%d problems", n)
}

// countOf is how many problems a finding has, and lists.
func countOf(f api.Finding) string {
	switch {
	case f.Unlisted > 0:
		return fmt.Sprintf("%d, of which %d are listed", len(f.Problems)+f.Unlisted, len(f.Problems))
	case f.Truncated: // by a server that does not count them
		return fmt.Sprintf("%d or more", len(f.Problems))
	}
	return fmt.Sprint(len(f.Problems))
}

// verdict is the error that makes the exit code; nil: all invariants hold.
func verdict(r api.CheckResult) error {
	if r.OK {
		return nil
	}
	err := object.Errorf(object.KindCorrupt, "the store of node %s does not hold its invariants: %s", r.Node, problemsText(r))
	if r.Open > 0 {
		return advise(err, "Changes were under way, and a problem may be one that is not finished: check again in half a minute. What is still there then is real; "+
			"the report says what to do.")
	}
	return advise(err, "The report says what each finding means and what to do about it.")
}
