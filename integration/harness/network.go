package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Cut drops what node From sends to node To; both count from 0.
type Cut struct{ From, To int }

// Isolate cuts one of n nodes off from the others.
func Isolate(n, node int) (cuts []Cut) {
	for other := range n {
		if other != node {
			cuts = append(cuts, Cut{node, other}, Cut{other, node})
		}
	}
	return cuts
}

// Mute drops what one of n nodes sends; it still hears the others.
func Mute(n, node int) (cuts []Cut) {
	for other := range n {
		if other != node {
			cuts = append(cuts, Cut{node, other})
		}
	}
	return cuts
}

// Deafen drops what is sent to one of n nodes; the others still hear it.
func Deafen(n, node int) (cuts []Cut) {
	for other := range n {
		if other != node {
			cuts = append(cuts, Cut{other, node})
		}
	}
	return cuts
}

// Split lets the nodes of one side speak to each other only. Nodes on no side
// hear everybody: one such node is a bridge. Everybody on both sides is alone.
func Split(a, b []int) (cuts []Cut) {
	for _, x := range a {
		for _, y := range b {
			if x != y {
				cuts = append(cuts, Cut{x, y}, Cut{y, x})
			}
		}
	}
	return cuts
}

// network is a bridge with one network namespace a node behind it. The bridge has
// a namespace of its own, too: the machine's packet filter (docker's drops what is
// forwarded) has no say there. The test reaches every node, whatever is cut between
// them. It is safe for concurrent use.
type network struct {
	name   string // of the bridge's namespace; those of the nodes begin with it
	cable  string // from the test to the bridge
	subnet string // the first three bytes of its addresses

	mu    sync.Mutex // guards what follows
	nodes int
}

// namePattern are the names that a network gives; its first group is the pid.
var namePattern = regexp.MustCompile(`\bbdb([0-9]+)x[0-9a-z]+\b`)

// newNetwork makes the bridge. What tests that were killed have left is removed.
func newNetwork(ctx context.Context) (*network, error) {
	if err := sweep(ctx); err != nil {
		return nil, err
	}
	tag := fmt.Sprintf("%dx%s", os.Getpid(), string(rune('a'+rand.IntN(26)))+string(rune('a'+rand.IntN(26))))
	w := &network{name: "bdb" + tag, cable: "v" + tag}
	for range 100 {
		w.subnet = fmt.Sprintf("10.%d.%d", 128+rand.IntN(128), rand.IntN(256))
		if free, err := unused(w.subnet); err != nil {
			return nil, err
		} else if free {
			break
		}
	}
	err := run(ctx, [][]string{
		{"netns", "add", w.name},
		{"-n", w.name, "link", "add", "br0", "type", "bridge"},
		{"-n", w.name, "link", "set", "br0", "up"},
		{"link", "add", w.cable, "type", "veth", "peer", "name", "test", "netns", w.name},
		{"-n", w.name, "link", "set", "test", "master", "br0", "up"},
		{"addr", "add", w.subnet + ".254/24", "dev", w.cable},
		{"link", "set", w.cable, "up"},
	})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// unused reports whether no interface of the machine has an address of the subnet.
func unused(subnet string) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if strings.HasPrefix(a.String(), subnet+".") {
			return false, err
		}
	}
	return true, err
}

// sweep removes the networks of processes that are gone.
func sweep(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "ip", "netns", "list").Output()
	if err != nil {
		return fmt.Errorf("ip netns list: %w", err)
	}
	for _, m := range namePattern.FindAllStringSubmatch(string(out), -1) {
		if _, err := os.Stat(filepath.Join("/proc", m[1])); err != nil {
			_ = ip(ctx, "netns", "del", m[0]) // another test may sweep at the same time
		}
	}
	return nil
}

// ip runs the program of that name.
func ip(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// run runs ip several times, until one fails.
func run(ctx context.Context, lines [][]string) error {
	for _, args := range lines {
		if err := ip(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (w *network) space(node int) string   { return fmt.Sprintf("%sn%d", w.name, node) }
func (w *network) address(node int) string { return fmt.Sprintf("%s.%d", w.subnet, node+1) }

// add makes the next node's namespace.
func (w *network) add(ctx context.Context) (space, address string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	node := w.nodes
	w.nodes++
	space, address = w.space(node), w.address(node)
	outside := fmt.Sprintf("node%d", node)
	err = run(ctx, [][]string{
		{"netns", "add", space},
		{"-n", w.name, "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space},
		{"-n", w.name, "link", "set", outside, "master", "br0", "up"},
		{"-n", space, "addr", "add", address + "/24", "dev", "eth0"},
		{"-n", space, "link", "set", "eth0", "up"},
		{"-n", space, "link", "set", "lo", "up"},
	})
	return space, address, err
}

// set puts these cuts in the place of those that were. Each node's rules change
// at once, one node after the other.
func (w *network) set(ctx context.Context, cuts []Cut) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for node := range w.nodes {
		var rules strings.Builder
		rules.WriteString("*filter\n:INPUT ACCEPT [0:0]\n")
		for _, c := range cuts {
			if c.To == node {
				fmt.Fprintf(&rules, "-A INPUT -s %s -j DROP\n", w.address(c.From))
			}
		}
		rules.WriteString("COMMIT\n")
		cmd := exec.CommandContext(ctx, "ip", "netns", "exec", w.space(node), "iptables-restore")
		cmd.Stdin = strings.NewReader(rules.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("iptables-restore at node %d: %w\n%s", node, err, out)
		}
	}
	return nil
}

// close removes everything. It has no context: a test that ended must still clean up.
func (w *network) close() (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx := context.Background()
	for node := range w.nodes {
		err = errors.Join(err, ip(ctx, "netns", "del", w.space(node)))
	}
	return errors.Join(err, ip(ctx, "netns", "del", w.name)) // the cables and the bridge go with it
}
