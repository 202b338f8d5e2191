package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// clusterCommand looks at the cluster and steers it.
func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cluster",
		Short: "Look at the cluster, steer it and check it",
		Long: `Look at the cluster, steer it and check it, through any of its nodes.

The exit code of its commands is 0 when what was asked for is done, 1 when it is not or
cannot be, 2 when the command line is wrong.`,
	}
	c.AddCommand(a.statusCommand(), a.nodesCommand(), a.partitionsCommand(), a.joinCommand(), a.drainCommand(), a.removeCommand(),
		a.rebalanceCommand(), a.transferCommand(), a.weightCommand(), a.zoneCommand(), a.settingsCommand(), a.checkCommand(), a.recoverCommand())
	return c
}

// shown makes a command that asks the cluster for something and prints it, as JSON
// with --json.
func shown[T any](a *app, c *cobra.Command, ask func(context.Context, *api.Client) (T, error), print func(T) error) *cobra.Command {
	var asJSON bool
	c.Args = asUsage(cobra.NoArgs)
	c.RunE = a.withClient(func(ctx context.Context, client *api.Client, _ []string) error {
		v, err := ask(ctx, client)
		switch {
		case err != nil:
			return err
		case asJSON:
			return a.printJSON(v)
		}
		return print(v)
	})
	a.endpointFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) statusCommand() *cobra.Command {
	return shown(a, &cobra.Command{
		Use:   "status",
		Short: "Show how the cluster is: its nodes, what is left to move, the node that answers",
	}, func(ctx context.Context, c *api.Client) (api.Cluster, error) { return c.Cluster(ctx) }, a.printStatus)
}

func (a *app) printStatus(s api.Cluster) error {
	led := 0
	for _, p := range s.Partitions {
		if p.Leader != "" {
			led++
		}
	}
	w := tabwriter.NewWriter(a.io.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "cluster\t%s, map epoch %d\n", s.Cluster, s.Epoch)
	if s.Old {
		fmt.Fprintln(w, "\tTHE CONTROL GROUP DOES NOT ANSWER: this is what the node last heard")
	}
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "member\t%s, %s\n", n.ID, stateText(n))
	}
	p := s.Progress
	fmt.Fprintf(w, "health\t%s\n", healthText(p))
	fmt.Fprintf(w, "to move\t%s\n", leftText(p))
	fmt.Fprintf(w, "node\t%s\n", s.Node)
	fmt.Fprintf(w, "version\t%s\n", s.Version)
	fmt.Fprintf(w, "started\t%s\n", s.Started.Local().Format(time.DateTime))
	fmt.Fprintf(w, "ready\t%t\n", s.Ready)
	fmt.Fprintf(w, "disk\t%s free of %s\n", bytesText(s.Usage.FreeBytes), bytesText(s.Usage.TotalBytes))
	fmt.Fprintf(w, "partitions\t%d, %d with a leader\n", len(s.Partitions), led)
	if err := w.Flush(); err != nil {
		return err
	}
	return a.printNotes(s.Nodes)
}

// stateText is a node's state in a few words.
func stateText(n api.ClusterNode) string {
	text := n.State
	switch {
	case n.State == "removed":
		return text
	case !n.Reachable:
		return text + ", not reachable"
	case n.Full:
		text += ", full"
	case !n.Ready:
		text += ", not ready"
	}
	if n.Empty {
		text += ", empty"
	}
	return text
}

func healthText(p api.Progress) string {
	var bad []string
	add := func(n int64, what string) {
		if n > 0 {
			bad = append(bad, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(p.LostChunks, "chunks LOST: nobody has them whole")
	add(int64(p.Leaderless), "partitions without a leader")
	add(int64(p.UnderReplicated), "partitions lack replicas")
	add(int64(p.ShortGroups), "chunk groups lack holders")
	add(p.ShortChunks, "chunks lack copies")
	add(p.ReportsToGo, "copies are being repaired")
	if len(bad) == 0 {
		return "good"
	}
	return strings.Join(bad, ", ")
}

func leftText(p api.Progress) string {
	switch {
	case p.Done:
		return "nothing"
	case !p.Planned:
		return "a plan is being made"
	}
	return fmt.Sprintf("%d of %d partitions, %d of %d chunk groups, %s of them on their way", p.PartitionsLeft, p.Partitions, p.GroupsLeft, p.Groups, bytesText(uint64(max(p.BytesToGo, 0))))
}

// printNotes prints what stands in the way of what was asked for, and why nodes are
// not reachable.
func (a *app) printNotes(nodes []api.ClusterNode) error {
	for _, n := range nodes {
		for _, note := range []string{n.Note, n.Error} {
			if note == "" {
				continue
			}
			if _, err := fmt.Fprintf(a.io.out, "\n%s: %s\n", n.ID, note); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) nodesCommand() *cobra.Command {
	return shown(a, &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes: where they are, how they are, what they have",
	}, func(ctx context.Context, c *api.Client) (api.Nodes, error) { return c.ClusterNodes(ctx) }, func(list api.Nodes) error {
		w := tabwriter.NewWriter(a.io.out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "NODE\tSTATE\tAPI\tPEER\tZONE\tWEIGHT\tREPLICAS\tLEADS\tCHUNK GROUPS\tFREE\tVERSION")
		for _, n := range list.Nodes {
			free, version := "-", "-"
			if n.Reachable {
				free, version = bytesText(n.Usage.FreeBytes), n.Version
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n", n.ID, stateText(n), orDash(n.API), orDash(n.Peer), orDash(n.Zone), n.Weight,
				plannedText(n.Replicas, n.PlannedReplicas), n.Leads, plannedText(n.Groups, n.PlannedGroups), free, version)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		return a.printNotes(list.Nodes)
	})
}

// plannedText is how many there are, and how many there shall be.
func plannedText(is, planned int) string {
	if is == planned {
		return fmt.Sprint(is)
	}
	return fmt.Sprintf("%d→%d", is, planned)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) partitionsCommand() *cobra.Command {
	var unsettled bool
	c := shown(a, &cobra.Command{
		Use:   "partitions",
		Short: "List the partitions: who leads them, where their replicas are and shall be",
		Long: `List the partitions: who leads them, where their replicas are and shall be. Partition 0 is
the control group. In the column of replicas a '*' marks the leader, and a state is told
where it is not "in force". Then follow the groups in which chunks are kept.`,
	}, func(ctx context.Context, c *api.Client) (api.Placement, error) { return c.ClusterPartitions(ctx) },
		func(p api.Placement) error { return a.printPartitions(p, unsettled) })
	c.Flags().BoolVar(&unsettled, "unsettled", false, "only those that are not as planned, or lack replicas")
	return c
}

func (a *app) printPartitions(p api.Placement, unsettled bool) error {
	w := tabwriter.NewWriter(a.io.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tLEADER\tEPOCH\tGOOD\tREPLICAS\tPLANNED")
	for _, x := range p.Partitions {
		if unsettled && x.Settled && x.Good >= x.Wanted {
			continue
		}
		replicas := make([]string, len(x.Replicas))
		for i, r := range x.Replicas {
			replicas[i] = replicaText(r, x.Leader)
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%d/%d\t%s\t%s\n", x.ID, orDash(x.Leader), x.Since, x.Good, x.Wanted, strings.Join(replicas, " "), strings.Join(x.Planned, " "))
	}
	if len(p.Groups) > 0 && !unsettled {
		fmt.Fprintln(w, "\nCOPIES OR SHARDS\tGROUPS\tSTABLE\tJOINT\tCOPYING\tNOT AS PLANNED\tLACK A HOLDER")
		for _, g := range p.Groups {
			fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%d\n", g.Width, g.Groups, g.Stable, g.Joint, g.Copying, g.Behind, g.Short)
		}
	}
	return w.Flush()
}

func replicaText(r api.Replica, leader string) string {
	text := r.Node
	if r.Node == leader {
		text += "*"
	}
	switch {
	case r.Lost:
		text += "(lost)"
	case r.State != "in force":
		text += "(" + r.State + ")"
	}
	return text
}
