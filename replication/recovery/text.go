package recovery

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print shows a report to a person.
func (r *Report) Print(out io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "node %s of cluster %s\n", r.Node, r.Cluster)
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "partition\treplica\tlast entry\tterm\tmade\tmembers")
	for _, x := range r.Replicas {
		if x.Unusable != "" {
			fmt.Fprintf(w, "%d\t%s\tunusable: %s\n", x.Partition, x.ID, x.Unusable)
			continue
		}
		var names []string
		for _, m := range x.Members {
			if m.Voter {
				names = append(names, m.ID)
			} else {
				names = append(names, m.ID+" (no vote)")
			}
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%s\t%s\n", x.Partition, x.ID, x.Last, x.LastTerm, moment(x.At), strings.Join(names, ", "))
	}
	err := w.Flush()
	if err == nil {
		_, err = out.Write(b.Bytes())
	}
	return err
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// Print shows a plan to a person: what goes on from where, and what may be lost.
func (p *Plan) Print(out io.Writer) error {
	var b bytes.Buffer
	names := make([]string, len(p.Left))
	for i, n := range p.Left {
		names[i] = string(n.Node)
	}
	lost := make([]string, len(p.Lost))
	for i, n := range p.Lost {
		lost[i] = string(n)
	}
	fmt.Fprintf(&b, "cluster %s\nleft:   %s\nlost:   %s\n\n", p.From, strings.Join(names, ", "), strings.Join(lost, ", "))
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "partition\tvoters left\tgoes on at\tfrom entry\tterm\tmade\tmay be lost")
	for i := range p.Partitions {
		x := &p.Partitions[i]
		switch {
		case x.Founded:
			fmt.Fprintf(w, "%d\t0\t%s\tnone\t\t\tEVERYTHING: no replica is left, it begins empty\n", x.Partition, x.Node)
		case x.Complete():
			fmt.Fprintf(w, "%d\t%d of %d\t%s\t%d\t%d\t%s\tnothing\n", x.Partition, x.VotersLeft, x.Voters, x.Node, x.Last, x.LastTerm, moment(x.At))
		default:
			fmt.Fprintf(w, "%d\t%d of %d\t%s\t%d\t%d\t%s\twhat was acknowledged after entry %d\n", x.Partition, x.VotersLeft, x.Voters, x.Node, x.Last, x.LastTerm, moment(x.At), x.Last)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	b.WriteByte('\n')
	for _, s := range p.Notes() {
		fmt.Fprintf(&b, "%s\n", s)
	}
	_, err := out.Write(b.Bytes())
	return err
}

// Notes say in sentences what the plan costs.
func (p *Plan) Notes() (list []string) {
	var short, gone int
	var oldest time.Time
	for i := range p.Partitions {
		x := &p.Partitions[i]
		switch {
		case x.Founded:
			gone++
		case !x.Complete():
			short++
			if !x.At.IsZero() && (oldest.IsZero() || x.At.Before(oldest)) {
				oldest = x.At
			}
		}
	}
	total := len(p.Partitions)
	if short > 0 {
		list = append(list, fmt.Sprintf("%d of %d partitions have no majority left. Changes that were acknowledged after the last entry of the log that goes on are lost; "+
			"how many there were, nobody who is left knows. Changes in that log that nobody acknowledged come to be.", short, total))
	}
	if gone > 0 {
		list = append(list, fmt.Sprintf("%d of %d partitions are lost as a whole. Names that lead there lead nowhere.", gone, total))
	}
	for _, c := range p.Chunks {
		what := fmt.Sprintf("Of the chunk groups of width %d, %d had a holder among the lost nodes", c.Width, c.Groups)
		if c.Gone > 0 {
			what += fmt.Sprintf("; %d have no holder left: reads of what is in them fail, and say that it is missing", c.Gone)
		}
		if c.Short > 0 {
			what += fmt.Sprintf("; %d have fewer left than their data shards: what was cut into that many cannot be read", c.Short)
		}
		if c.Groups > 0 {
			list = append(list, what+". What one node alone is left with is copied to others when there are some.")
		}
	}
	if short > 0 || gone > 0 {
		list = append(list, "Then run `bucketdb cluster check` on each node: it lists what does not fit together any more.")
	}
	if len(p.Lost) > 0 {
		list = append(list, fmt.Sprintf("Never start the lost nodes again: together they may be a majority of what the cluster was. Where they reach a node that is left, they are refused. "+
			"To have %s back, start %s on empty directories and with -join.", them(len(p.Lost)), them(len(p.Lost))))
	}
	return list
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
