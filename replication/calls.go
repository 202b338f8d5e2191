package replication

// The methods of the transport that a Node itself serves. The numbers cross the wire:
// never used again for something else.
const (
	methodUploads uint16 = 0x60 // audit.go: ids of uploads → which are under way
	methodEvents  uint16 = 0x61 // events_feed.go: feedAsk → feedAnswer
	methodPeer    uint16 = 0x62 // peers.go: peerNews → peerNews
)

// serveCalls answers the questions of other nodes.
func (n *Node) serveCalls() {
	n.net.HandleCall(methodUploads, n.serveUploads)
	n.net.HandleCall(methodEvents, n.serveFeed)
	n.net.HandleCall(methodPeer, n.servePeer)
}
