package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb"
	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// onNode makes a command that changes something of a node and says so.
func (a *app) onNode(c *cobra.Command, args int, do func(ctx context.Context, client *api.Client, args []string) (said string, err error)) *cobra.Command {
	c.Args = asUsage(cobra.ExactArgs(args))
	c.RunE = a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
		said, err := do(ctx, client, args)
		if err == nil {
			_, err = fmt.Fprintln(a.io.out, said)
		}
		return err
	})
	a.endpointFlag(c)
	return c
}

func (a *app) drainCommand() *cobra.Command {
	var undo bool
	var wait waiting
	c := a.onNode(&cobra.Command{
		Use:   "drain NODE",
		Short: "Move everything that a node has to others, before it is removed",
		Long: `Move everything that a node has to others. The node goes on serving meanwhile. The command
waits until the node is empty; interrupted, or with --no-wait, it leaves the cluster to
go on by itself. --undo lets the node take data again.

The exit code is 0 when the node is empty (with --no-wait or --undo: when that is on
record), 1 when it is not, or never will be as the cluster stands.`,
	}, 1, func(ctx context.Context, client *api.Client, args []string) (string, error) {
		node := args[0]
		if err := client.Drain(ctx, node, undo); err != nil {
			return "", err
		}
		switch {
		case undo:
			return fmt.Sprintf("%s takes data again.", node), nil
		case wait.not:
			return fmt.Sprintf("%s is being drained; 'bucketdb cluster nodes' shows how far it is.", node), nil
		}
		if err := a.untilEmpty(ctx, client, node, wait); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s is empty; 'bucketdb cluster remove %s' ends its membership.", node, node), nil
	})
	c.Flags().BoolVar(&undo, "undo", false, "let the node take data again")
	wait.flags(c)
	return c
}

func (a *app) removeCommand() *cobra.Command {
	return a.onNode(&cobra.Command{
		Use:   "remove NODE",
		Short: "End a node's membership for ever",
		Long: `End a node's membership for ever. One that runs must be empty ('bucketdb cluster drain');
of one that is gone for good, others must have taken over everything. Where that is not so
the command says what to wait for, and changes nothing. The node's store never comes back;
its name may, with empty directories.`,
	}, 1, func(ctx context.Context, client *api.Client, args []string) (string, error) {
		if err := client.RemoveNode(ctx, args[0]); err != nil {
			if object.IsKind(err, object.KindBusy) {
				err = advise(err, "'bucketdb cluster nodes' shows what the node still has.")
			}
			return "", err
		}
		return fmt.Sprintf("%s is removed: stop its process; its directories can be deleted.", args[0]), nil
	})
}

func (a *app) weightCommand() *cobra.Command {
	return a.onNode(&cobra.Command{
		Use:   "weight NODE WEIGHT",
		Short: "Change a node's share of the data (100 is what nodes begin with, 0 is none)",
	}, 2, func(ctx context.Context, client *api.Client, args []string) (string, error) {
		n, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return "", usagef("bucketdb cluster weight", "the weight is %q; it must be a whole number of 0 or more", args[1])
		}
		weight := uint32(n)
		if err := client.ChangeNode(ctx, args[0], api.NodeChange{Weight: &weight}); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s has weight %d; 'bucketdb cluster rebalance' waits until the data has moved.", args[0], weight), nil
	})
}

func (a *app) zoneCommand() *cobra.Command {
	return a.onNode(&cobra.Command{
		Use:   "zone NODE ZONE",
		Short: "Name what fails together with a node (a rack, a room); '' is none",
	}, 2, func(ctx context.Context, client *api.Client, args []string) (string, error) {
		if err := client.ChangeNode(ctx, args[0], api.NodeChange{Zone: &args[1]}); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s is in zone %q; 'bucketdb cluster rebalance' waits until the data has moved.", args[0], args[1]), nil
	})
}

func (a *app) transferCommand() *cobra.Command {
	var keep time.Duration
	c := a.onNode(&cobra.Command{
		Use:   "transfer PARTITION [NODE]",
		Short: "Have another node lead a partition for a while",
		Long: `Have another node lead a partition, and wait until it does. Without NODE it is whichever
other replica is furthest. Partition 0 is the control group; 'bucketdb cluster partitions'
shows who leads, and where replicas are.

This is for a while: after --keep, or when the node restarts, the cluster hands the
leadership back to the preferred node, the first under PLANNED. To keep a node from
leading for good, take its data away with 'bucketdb cluster weight' or 'drain'.

The exit code is 0 when the other node leads, 1 when it does not: it has no replica, is
drained, does not answer or is far behind. To repeat the command is harmless.`,
	}, 0, func(ctx context.Context, client *api.Client, args []string) (string, error) {
		id, err := strconv.ParseUint(args[0], 10, 16)
		if err != nil {
			return "", usagef("bucketdb cluster transfer", "the partition is %q; it must be a number that 'bucketdb cluster partitions' shows", args[0])
		}
		if keep <= 0 {
			return "", usagef("bucketdb cluster transfer", "--keep is %s; it must be a time above 0, such as 10m", keep)
		}
		l, err := client.TransferLeadership(ctx, object.PartitionID(id), api.LeadershipTransfer{Node: strings.Join(args[1:], ""), Keep: keep.String()})
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s leads partition %d; where it is not the preferred node it hands it back after %s.", l.Leader, id, keep), nil
	})
	c.Args = asUsage(cobra.RangeArgs(1, 2))
	c.Flags().DurationVar(&keep, "keep", replication.DefaultKeepLead, "how long it stays there before it goes back to the preferred node (`TIME`, 24h at most)")
	return c
}

func (a *app) rebalanceCommand() *cobra.Command {
	var wait waiting
	c := a.onNode(&cobra.Command{
		Use:   "rebalance",
		Short: "Wait until everything is where it shall be",
		Long: `Wait until everything is where it shall be, and show how much is left. Nothing has to be
started: the cluster moves data by itself whenever nodes, weights, zones or settings have
changed, at the pace of 'bucketdb cluster settings'.

The exit code is 0 when nothing is left to move, 1 otherwise (with --no-wait: at once).`,
	}, 0, func(ctx context.Context, client *api.Client, _ []string) (string, error) {
		if err := a.untilBalanced(ctx, client, wait); err != nil {
			return "", err
		}
		return "Everything is where it shall be.", nil
	})
	wait.flags(c)
	return c
}

// settingNames are the settings by their names on the command line.
func settingNames() []string {
	return []string{"rf", "voters", "gone-after", "moves", "moves-per-node", "group-moves", "groups-per-node", "hold", "repair-rate", "rewrite-rate"}
}

func (a *app) settingsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "settings [NAME=VALUE ...]",
		Short: "Show the cluster's settings, or change some",
		Long: `Show the cluster's settings, or change some:

  rf               replicas of each partition (fewer while there are fewer nodes)
  voters           nodes that vote in the control group, 5 at most
  gone-after       silence of a node after which others take over what it has: 10m, 90s
  moves            partitions that move at once
  moves-per-node   of them, those that touch one node
  group-moves      chunk groups that move at once
  groups-per-node  of them, those that touch one node
  hold             yes: no chunk's data is dropped, whatever is removed. A recovery sets it
  repair-rate      bytes a second that each node mends, and as many again that move to it: 16M.
                   0 is what each node was started with, 64M unless a program says otherwise
  rewrite-rate     bytes a second that each node rewrites of buckets whose storage has changed.
                   0 is 32M

Settings hold for all nodes from the moment on at which they hear of them; none is restarted.

  bucketdb cluster settings rf=3 gone-after=5m repair-rate=16M`,
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			change, err := settingsChange(args)
			if err != nil {
				return err
			}
			ask := client.ClusterSettings
			if len(args) > 0 {
				ask = func(ctx context.Context) (api.Settings, error) { return client.Configure(ctx, change) }
			}
			s, err := ask(ctx)
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(s)
			}
			return a.printSettings(s)
		}),
	}
	a.endpointFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func settingsChange(args []string) (change api.SettingsChange, err error) {
	at := map[string]**int{"rf": &change.RF, "voters": &change.Voters, "moves": &change.Moves, "moves-per-node": &change.MovesPerNode,
		"group-moves": &change.GroupMoves, "groups-per-node": &change.GroupsPerNode}
	rates := map[string]**int64{"repair-rate": &change.RepairRate, "rewrite-rate": &change.RewriteRate}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		name = strings.ReplaceAll(name, "_", "-")
		switch {
		case !ok || !slices.Contains(settingNames(), name):
			return change, usagef("bucketdb cluster settings", "%q is no setting; write NAME=VALUE, with one of: %s", arg, strings.Join(settingNames(), ", "))
		case name == "gone-after":
			change.GoneAfter = &value
		case rates[name] != nil:
			var rate size
			if err := rate.Set(value); err != nil {
				return change, usagef("bucketdb cluster settings", "%s: %v", name, err)
			}
			*rates[name] = (*int64)(&rate)
		case name == "hold":
			if value != "yes" && value != "no" {
				return change, usagef("bucketdb cluster settings", "hold is %q; it must be yes or no", value)
			}
			hold := value == "yes"
			change.Hold = &hold
		default:
			n, err := strconv.Atoi(value)
			if err != nil {
				return change, usagef("bucketdb cluster settings", "%s is %q; it must be a whole number", name, value)
			}
			*at[name] = &n
		}
	}
	return change, nil
}

func (a *app) printSettings(s api.Settings) error {
	w := tabwriter.NewWriter(a.io.out, 0, 8, 2, ' ', 0)
	hold := map[bool]string{false: "no", true: "yes"}[s.Hold]
	values := []any{s.RF, s.Voters, s.GoneAfter, s.Moves, s.MovesPerNode, s.GroupMoves, s.GroupsPerNode, hold, (*size)(&s.RepairRate), (*size)(&s.RewriteRate)}
	for i, name := range settingNames() {
		fmt.Fprintf(w, "%s\t%v\n", name, values[i])
	}
	return w.Flush()
}

// joining is what a new node needs to join, as --json shows it.
type joining struct {
	ID      string   `json:"id"`
	Join    []string `json:"join"` // addresses of nodes
	Secret  bool     `json:"secret"`
	Command string   `json:"command"`
}

func (a *app) joinCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "join [ID]",
		Short: "Show how another node joins the cluster",
		Long: `Show the command that starts another node in this cluster. A node joins when it starts,
with -join, and only with empty directories: there is nothing to be done at the others, and
a node that runs alone has data of its own, which no cluster takes over. ID is the new
node's name; without it one that is free is chosen.`,
		Args: asUsage(cobra.MaximumNArgs(1)),
		RunE: a.withClient(func(ctx context.Context, client *api.Client, args []string) error {
			s, err := client.Cluster(ctx)
			if err != nil {
				return err
			}
			j, err := howToJoin(s, strings.Join(args, ""))
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(j)
			}
			return a.printJoin(s, j)
		}),
	}
	a.endpointFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// howToJoin finds a free name and the addresses of the nodes that there are.
func howToJoin(s api.Cluster, id string) (joining, error) {
	j := joining{ID: id}
	taken := map[string]string{}
	for _, n := range s.Nodes {
		taken[n.ID] = n.State
		if n.Peer == "" || n.State == "removed" || n.State == "gone" {
			continue
		}
		j.Join = append(j.Join, n.Peer)
		host, _, _ := net.SplitHostPort(n.Peer) // an address that is none needs the secret
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			j.Secret = true
		}
	}
	switch state := taken[id]; {
	case len(j.Join) == 0:
		return j, advise(object.Errorf(object.KindNotSupported, "no node of this cluster has a port for other nodes"), "Restart it with -bootstrap, or with -http ADDRESS, then try again.")
	case id != "" && state != "" && state != "removed":
		return j, advise(object.Errorf(object.KindExists, "the cluster has a node %q already", id), "Choose another name, or remove that node first.")
	}
	for i := len(s.Nodes) + 1; j.ID == ""; i++ {
		if name := "n" + strconv.Itoa(i); taken[name] == "" {
			j.ID = name
		}
	}
	words := []string{"bucketdb", "-id", j.ID, "-join", strings.Join(j.Join, ","), "-http", "HOST:8080", "-api", "127.0.0.1:9080", "-metadata", "./" + j.ID + "/metadata", "-storage", "./" + j.ID + "/chunks"}
	if n := s.Progress.Partitions - 1; n > 0 && n != bucketdb.DefaultPartitions {
		words = append(words, "-partitions", strconv.Itoa(n))
	}
	if j.Secret {
		words = append(words, "--cluster-secret-file", "cluster.secret")
	}
	j.Command = strings.Join(words, " ")
	return j, nil
}

func (a *app) printJoin(s api.Cluster, j joining) error {
	text := "A node joins when it starts. On the new machine:\n\n  " + j.Command + "\n\n" +
		"HOST is an address where the other nodes reach it. "
	if j.Secret {
		text += fmt.Sprintf("Copy the file cluster.secret, which is in the metadata directory of %s\nand of every other node, to the new machine first (mode 0600): who has it can join.\n", s.Node)
	} else {
		text += "The nodes are on loopback and need no secret.\n"
	}
	text += "\nThen 'bucketdb cluster rebalance' waits until the new node has its share. The command may be repeated.\n"
	_, err := fmt.Fprint(a.io.out, text)
	return err
}

// waiting is how long a command waits for what it began.
type waiting struct {
	not     bool
	timeout time.Duration
}

func (w *waiting) flags(c *cobra.Command) {
	c.Flags().BoolVar(&w.not, "no-wait", false, "do not wait")
	c.Flags().DurationVar(&w.timeout, "timeout", 0, "wait no longer than this `TIME`; 0: as long as it takes")
}

// lookEvery is the pause between two looks at what is waited for.
const lookEvery = 500 * time.Millisecond

// until looks again and again until there is nothing left, and shows how much is.
func (a *app) until(ctx context.Context, w waiting, name string, look func(context.Context) (left int, done bool, err error)) error {
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	bar := newSteps(a.io.err, name)
	failed := true
	defer func() { bar.done(failed) }()
	for {
		left, done, err := look(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return a.goesOn(ctx.Err())
		case err != nil:
			return err
		}
		bar.left(left)
		if done {
			failed = false
			return nil
		}
		if w.not {
			return object.Errorf(object.KindBusy, "not everything is where it shall be: %d moves are left, or a plan is being made", left)
		}
		select {
		case <-ctx.Done():
			return a.goesOn(ctx.Err())
		case <-time.After(lookEvery):
		}
	}
}

func (a *app) goesOn(err error) error {
	return advise(fmt.Errorf("the wait ended before the work did: %w", err), "The cluster goes on by itself; 'bucketdb cluster status' shows how far it is.")
}

// untilEmpty waits until a node that is drained has nothing left.
func (a *app) untilEmpty(ctx context.Context, client *api.Client, node string, w waiting) error {
	return a.until(ctx, w, "draining "+node, func(ctx context.Context) (int, bool, error) {
		list, err := client.ClusterNodes(ctx)
		if err != nil {
			return 0, false, err
		}
		for _, n := range list.Nodes {
			if n.ID != node {
				continue
			}
			switch {
			case n.State == "removed":
				return 0, true, nil
			case n.State == "up":
				return 0, false, object.Errorf(object.KindConflict, "the drain of node %s was taken back by somebody", node)
			case n.Note != "" && n.Replicas == n.PlannedReplicas && n.Groups == n.PlannedGroups:
				return 0, false, advise(object.Errorf(object.KindBusy, "node %s %s", node, n.Note), "Then the drain goes on; 'bucketdb cluster drain %s --undo' takes it back.", node)
			}
			return n.Replicas + n.Groups, n.Empty, nil
		}
		return 0, false, object.Errorf(object.KindNotFound, "the cluster has no node %q", node)
	})
}

// untilBalanced waits until nothing is left to move.
func (a *app) untilBalanced(ctx context.Context, client *api.Client, w waiting) error {
	return a.until(ctx, w, "moving", func(ctx context.Context) (int, bool, error) {
		s, err := client.Cluster(ctx)
		if err != nil {
			return 0, false, err
		}
		return s.Progress.PartitionsLeft + s.Progress.GroupsLeft, s.Progress.Done && !s.Old, nil
	})
}
