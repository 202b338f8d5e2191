package replication

import (
	"github.com/skshohagmiah/bucketdb/replication/access"
	"github.com/skshohagmiah/bucketdb/replication/pins"
	"github.com/skshohagmiah/bucketdb/replication/steward"
)

// The methods of the transport that a Node itself serves. The numbers cross the wire:
// never used again for something else.
const (
	methodUploads uint16 = 0x60 // audit.go: ids of uploads → which are under way
	methodEvents  uint16 = 0x61 // events_feed.go: feedAsk → feedAnswer
	methodPeer    uint16 = 0x62 // peers.go: peerNews → peerNews
	methodFacts   uint16 = 0x63 // facts.go: (empty) → factSheet, in JSON, so that nodes of other releases read it too
	methodRanges  uint16 = 0x64 // ranges.go: who leads a partition → what the node that asks has to hold, by ranges
	methodHand    uint16 = 0x65 // lead.go: who leads a partition ← transfer: hand it on → who leads it now
	methodLead    uint16 = 0x66 // lead.go: whom the leadership is handed to ← leadAsk → leadAnswer

	methodLease      uint16 = 0x70 // leases.go: leaseAsk → leaseAnswer
	methodLockWait   uint16 = 0x71 // locks.go: lockAsk → LockAnswer
	methodLockQueues uint16 = 0x72 // deadlock.go: (anything) → []lockEdge
)

// Two methods of one number would not compile: of two handlers the later one would
// answer for both.
var _ = map[uint16]struct{}{
	methodUploads: {}, methodEvents: {}, methodPeer: {}, methodFacts: {}, methodRanges: {}, methodHand: {}, methodLead: {},
	methodLease: {}, methodLockWait: {}, methodLockQueues: {},
	access.MethodPropose: {}, access.MethodIndex: {}, access.MethodView: {},
	steward.MethodReport: {}, steward.MethodCreate: {}, steward.MethodJoin: {},
	pins.MethodLease: {}, pins.MethodPins: {},
}

// serveCalls answers the questions of other nodes.
func (n *Node) serveCalls() {
	n.net.HandleCall(methodUploads, n.serveUploads)
	n.net.HandleCall(methodEvents, n.serveFeed)
	n.net.HandleCall(methodPeer, n.servePeer)
	n.net.HandleCall(methodFacts, n.serveFacts)
	n.net.HandleCall(methodRanges, n.serveRanges)
	n.net.HandleCall(methodHand, n.serveHand)
	n.net.HandleCall(methodLead, n.serveLead)
	n.net.HandleCall(methodLease, n.serveLease)
	n.net.HandleCall(methodLockWait, n.serveLockWait)
	n.net.HandleCall(methodLockQueues, n.serveLockQueues)
}
