package steward_test

import (
	"testing"
)

// TestGrow bootstraps one node, joins two, then a fourth: every partition has three
// voters, replicas move to the fourth, and nothing that was acknowledged is lost.
func TestGrow(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.bootstrap("a", 3)
	c.write("one")
	c.add("b").up()
	c.add("c").up()
	c.eventually("three voters of each", func() bool { return c.settled(3) })
	c.write("three")
	c.check()
	c.add("d").up()
	c.eventually("replicas on the fourth", func() bool {
		s := c.now()
		if s == nil || !c.settled(3) {
			return false
		}
		for i := range s.Partitions[1:] {
			for _, r := range s.Partitions[i+1].Replicas {
				if r.ID.Node == "d" {
					return true
				}
			}
		}
		return false
	})
	c.write("four")
	c.check()
}
