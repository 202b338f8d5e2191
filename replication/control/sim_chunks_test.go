package control

import (
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/placement"
)

// write puts a chunk into a group by a map that may be old, and notes whether it
// was acknowledged.
func (w *world) write() {
	s := w.now()
	if w.rnd.IntN(2) == 0 {
		s = w.history[max(0, len(w.history)-1-w.rnd.IntN(12))]
	}
	l := s.Layouts[w.rnd.IntN(len(s.Layouts))]
	i := w.rnd.IntN(len(l.Groups))
	g := l.Groups[i]
	w.chunks++
	chunk, id := w.chunks, groupID{l.Width, i}
	scheme := l.Schemes[w.rnd.IntN(len(l.Schemes))]
	took := func(slots []NodeID) bool {
		all, have := 0, 0
		for _, holder := range slots {
			if holder == placement.None {
				continue
			}
			all++
			n := w.nodes[holder]
			if n == nil || !n.up || n.dead || w.rnd.IntN(5) == 0 && !n.files[id][chunk] {
				continue
			}
			n.epoch = max(n.epoch, s.Epoch) // the newest is adopted before anything is taken
			if w.at(n.epoch).Layout(l.Width).Groups[i].Since > g.Since {
				continue
			}
			n.put(id, chunk)
			have++
		}
		return all >= scheme && have >= quorum(scheme, all)
	}
	ok := took(g.Holders)
	if g.Next != nil {
		ok = took(g.Next) && ok
	}
	if ok {
		if w.acked[id] == nil {
			w.acked[id] = map[int]int{}
		}
		w.acked[id][chunk] = scheme
	}
}

func (n *simNode) put(id groupID, chunk int) {
	if n.files[id] == nil {
		n.files[id] = map[int]bool{}
	}
	n.files[id][chunk] = true
}

// copyGroup fetches what a node lacks, from as many lists as it takes.
func (w *world) copyGroup(a Action, n *simNode) {
	if n == nil || !n.up || n.dead {
		return
	}
	g := w.now().Layout(a.Group.Width).Groups[a.Group.Group]
	if g.Next == nil || g.Since != a.Group.Since || !w.now().Layout(a.Group.Width).Copying[a.Group.Group] {
		return // the holders refuse
	}
	id := groupID{a.Group.Width, a.Group.Group}
	var list []int
	lists := 0
	for _, old := range g.Holders {
		if from := w.nodes[old]; old != placement.None && from != nil && from.up && !from.dead {
			lists++
			for chunk := range from.files[id] {
				list = append(list, chunk)
			}
		}
	}
	if lists < a.Lists {
		return
	}
	n.epoch = max(n.epoch, a.Group.Since)
	for _, chunk := range list {
		n.put(id, chunk)
	}
	if !slices.Contains(w.done[a.Group], a.Node) {
		w.done[a.Group] = append(w.done[a.Group], a.Node)
	}
}

// audit lets a node drop what it need not hold, as far as its map and the owners allow.
func (w *world) audit(n *simNode) {
	mine := w.at(n.epoch)
	for id, files := range n.files {
		l := mine.Layout(id.width)
		if n.dead || !n.up || l == nil {
			continue
		}
		if g := l.Groups[id.group]; slices.Contains(g.Holders, n.id) || slices.Contains(g.Next, n.id) {
			continue
		}
		now := w.now().Layout(id.width)
		g := now.Groups[id.group]
		if slices.Contains(g.Holders, n.id) || slices.Contains(g.Next, n.id) {
			continue // the owner knows better
		}
		all, _, _ := holders(g.Holders, nil)
		for chunk := range files {
			have := 0
			for _, h := range g.Holders {
				if m := w.nodes[h]; m != nil && !m.dead && m.files[id][chunk] {
					have++
				}
			}
			if scheme, acked := w.acked[id][chunk]; !acked || have >= quorum(scheme, all) {
				delete(files, chunk)
			}
		}
	}
}

// repair brings every holder of stable groups what it lacks.
func (w *world) repair() {
	for _, l := range w.now().Layouts {
		for i, g := range l.Groups {
			id := groupID{l.Width, i}
			for chunk := range w.acked[id] {
				if !slices.ContainsFunc(g.Holders, func(h NodeID) bool { n := w.nodes[h]; return n != nil && !n.dead && n.up && n.files[id][chunk] }) {
					continue
				}
				for _, h := range g.Holders {
					if n := w.nodes[h]; n != nil && n.up && !n.dead {
						n.put(id, chunk)
					}
				}
			}
		}
	}
}
