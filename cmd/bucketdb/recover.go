package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb"
	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/recovery"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// recoverFlags are those of cluster recover.
type recoverFlags struct {
	metadata, report, plan string
	lost                   []string
	force                  bool
}

const recoverHelp = `Bring a cluster back that has lost a majority of its nodes for good. It works on stopped
nodes, changes nothing without --force, and never happens by itself.

One node is left: stop it, and there

  bucketdb cluster recover --metadata DIR --lost n2,n3            shows what may be lost
  bucketdb cluster recover --metadata DIR --lost n2,n3 --force    does it

Several nodes are left: stop all of them, then

  bucketdb cluster recover --metadata DIR --report n1.json        on each that is left
  bucketdb cluster recover --lost n3,n4,n5 --plan plan.json n1.json n2.json
                                                                  once, anywhere: shows and writes the plan
  bucketdb cluster recover --metadata DIR --plan plan.json --force
                                                                  on each that is left

Each partition goes on from the longest log that is left. What was acknowledged after that
log's end is lost. An interrupted --force is finished by calling it again; the node does not start before.

The recovered cluster has another id, with which new nodes join it under the same secret. A lost node
that comes back is refused, and says why; on empty directories it may join again.

The exit code is 0 when it was done or shown, 1 when it cannot be, 2 when the command line is wrong.`

// recoverCommand brings a cluster back that has lost a majority for good.
func (a *app) recoverCommand() *cobra.Command {
	var f recoverFlags
	c := &cobra.Command{
		Use:   "recover [flags] [REPORT...]",
		Short: "Bring a cluster back that lost a majority of its nodes for good",
		Long:  recoverHelp,
		RunE: func(c *cobra.Command, files []string) error {
			if f.force && f.report != "" || f.report != "" && (f.plan != "" || len(f.lost) > 0 || len(files) > 0) {
				return usagef("bucketdb cluster recover", "--report goes with --metadata alone")
			}
			if f.force && f.plan != "" && (len(f.lost) > 0 || len(files) > 0) {
				return usagef("bucketdb cluster recover", "--plan with --force carries out a plan that was made: leave --lost and reports out")
			}
			logger, err := a.logger(a.io.err)
			if err != nil {
				return err
			}
			cfg := replication.Config{MetadataPath: f.metadata, Logger: logger}
			switch {
			case f.report != "":
				return a.recoverReport(c.Context(), cfg, f.report)
			case f.force:
				return a.recoverForce(c.Context(), cfg, &f)
			}
			p, err := f.made(c.Context(), cfg, files)
			if err != nil {
				return err
			}
			return a.recoverShow(p, &f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.metadata, "metadata", bucketdb.DefaultMetadataPath, "`DIR` of the metadata of the stopped node")
	flags.StringSliceVar(&f.lost, "lost", nil, "the `NODES` that will never come back, n2,n3")
	flags.StringVar(&f.report, "report", "", "write what this node has to this `FILE`")
	flags.StringVar(&f.plan, "plan", "", "write the plan to this `FILE`; with --force, carry it out")
	flags.BoolVar(&f.force, "force", false, "do it: what may be lost is given up")
	return c
}

func (a *app) recoverReport(ctx context.Context, cfg replication.Config, name string) error {
	r, err := replication.Inspect(ctx, cfg)
	if err != nil {
		return adviseStopped(err)
	}
	b, err := r.Encode()
	if err == nil {
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		return err
	}
	return r.Print(a.io.out)
}

// made makes the plan: of the reports that are given, else of this node's own.
func (f *recoverFlags) made(ctx context.Context, cfg replication.Config, files []string) (*recovery.Plan, error) {
	var reports []*recovery.Report
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		r, err := recovery.DecodeReport(b)
		if err != nil {
			return nil, object.Errorf(object.KindOf(err), "%s: %w", name, err)
		}
		reports = append(reports, r)
	}
	if len(files) == 0 {
		r, err := replication.Inspect(ctx, cfg)
		if err != nil {
			return nil, adviseStopped(err)
		}
		reports = append(reports, r)
	}
	lost := make([]control.NodeID, len(f.lost))
	for i, id := range f.lost {
		lost[i] = control.NodeID(id)
	}
	return recovery.New(reports, lost, time.Now())
}

func (a *app) recoverShow(p *recovery.Plan, f *recoverFlags) error {
	if err := p.Print(a.io.out); err != nil {
		return err
	}
	next := "Nothing was changed. To do it, add --force."
	if f.plan != "" {
		b, err := p.Encode()
		if err == nil {
			err = os.WriteFile(f.plan, b, 0o600)
		}
		if err != nil {
			return err
		}
		next = fmt.Sprintf("Nothing was changed. The plan is in %s: carry it out on each node that is left, with --plan %s --force.", f.plan, filepath.Base(f.plan))
	} else if len(p.Left) > 1 {
		next = "Nothing was changed. To go on, write this plan to a file with --plan FILE, and carry that out on each node that is left."
	}
	_, err := fmt.Fprintf(a.io.out, "\n%s\n", next)
	return err
}

func (a *app) recoverForce(ctx context.Context, cfg replication.Config, f *recoverFlags) error {
	p, err := a.recoverPlan(ctx, cfg, f)
	if err != nil {
		return err
	}
	if err := p.Print(a.io.out); err != nil {
		return err
	}
	if err := replication.Recover(ctx, cfg, p); err != nil {
		return adviseStopped(err)
	}
	next := "Start this node now."
	if len(p.Left) > 1 {
		next = "Carry the same plan out on the other nodes that are left, then start all of them."
	}
	next += " Until you say otherwise the data of every chunk is kept, since what names it may be among what was lost:" +
		" 'bucketdb cluster check' shows what is missing, 'bucketdb cluster settings hold=no' ends that."
	_, err = fmt.Fprintf(a.io.out, "\nDone: the cluster is %s now. %s\n", p.To, next)
	return err
}

// recoverPlan is the plan to carry out: the file's, the one that was begun here, or one for
// the only node that is left.
func (a *app) recoverPlan(ctx context.Context, cfg replication.Config, f *recoverFlags) (*recovery.Plan, error) {
	if f.plan != "" {
		b, err := os.ReadFile(f.plan)
		if err != nil {
			return nil, err
		}
		p, err := recovery.DecodePlan(b)
		if err != nil {
			return nil, object.Errorf(object.KindOf(err), "%s: %w", f.plan, err)
		}
		return p, needed(p)
	}
	if p, err := replication.Recovering(cfg); err != nil || p != nil {
		return p, err
	}
	p, err := f.made(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	return p, needed(p)
}

// needed refuses what the cluster does by itself.
func needed(p *recovery.Plan) error {
	if p.Needed() {
		return nil
	}
	return object.Errorf(object.KindInvalid, "every partition has a majority left: start the nodes that are left, and take the lost ones out with `bucketdb cluster remove`")
}

// adviseStopped says what to do about errors of stopped nodes.
func adviseStopped(err error) error {
	switch {
	case object.IsKind(err, object.KindBusy):
		return advise(err, "The node has to be stopped first.")
	case errors.Is(err, fs.ErrPermission):
		return advise(err, "Run this as the user that the node runs as.")
	}
	return err
}
