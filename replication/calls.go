package replication

// The methods of the transport that a Node itself serves. The numbers cross the wire:
// never used again for something else.
const (
	methodUploads uint16 = 0x60 // audit.go: ids of uploads → which are under way
	methodRanges  uint16 = 0x68 // ranges.go: who leads a partition → what the node that asks has to hold, by ranges
)

// serveCalls answers the questions of other nodes.
func (n *Node) serveCalls() {
	n.net.HandleCall(methodUploads, n.serveUploads)
	n.net.HandleCall(methodRanges, n.serveRanges)
}
