package server

import (
	"context"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/skshohagmiah/bucketdb/replication"
)

// metrics are the server's own figures; the engine's are asked of the node when
// the page is read.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	sent     *prometheus.CounterVec
	received prometheus.Counter
	inFlight prometheus.Gauge
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bucketdb_http_requests_total",
			Help: "Requests answered, by method, route and class of status."}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bucketdb_http_request_seconds",
			Help: "Time from the request's header to the end of its answer.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, []string{"method", "route"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bucketdb_http_sent_bytes_total",
			Help: "Bytes of answers' bodies."}, []string{"method", "route"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: "bucketdb_http_received_bytes_total", Help: "Bytes of objects' and files' bodies."}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "bucketdb_http_requests_in_flight", Help: "Requests being served now."}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.sent, m.received, m.inFlight, newEngineCollector(s),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// routeMetrics are the figures of one route, looked up once.
type routeMetrics struct {
	classes [6]prometheus.Counter // by first digit of the status
	seconds prometheus.Observer
	sent    prometheus.Counter
}

func (m *metrics) route(method, route string) *routeMetrics {
	r := &routeMetrics{seconds: m.seconds.WithLabelValues(method, route), sent: m.sent.WithLabelValues(method, route)}
	for class := 1; class < len(r.classes); class++ {
		r.classes[class] = m.requests.WithLabelValues(method, route, strconv.Itoa(class)+"xx")
	}
	return r
}

func (r *routeMetrics) observe(status int, took time.Duration, sent int) {
	if class := status / 100; class > 0 && class < len(r.classes) {
		r.classes[class].Inc()
	}
	r.seconds.Observe(took.Seconds())
	if sent > 0 {
		r.sent.Add(float64(sent))
	}
}

// metricsPage is GET /metrics.
func (s *Server) metricsPage() handler {
	page := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return func(c *gin.Context) error {
		page.ServeHTTP(c.Writer, c.Request)
		return nil
	}
}

// engineCollector turns replication.Status into gauges.
type engineCollector struct {
	of    *Server
	ready *prometheus.Desc
	bytes *prometheus.Desc
	nodes *prometheus.Desc
	parts *prometheus.Desc
	index *prometheus.Desc

	epoch, members, under, short, left, lacking, corrupt, lost, repaired, fetched, dropped, waiting, toGo *prometheus.Desc
}

func newEngineCollector(s *Server) *engineCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("bucketdb_"+name, help, labels, nil)
	}
	return &engineCollector{
		of:    s,
		ready: desc("ready", "1 when the node serves."),
		bytes: desc("capacity_bytes", "Bytes of the storage paths, by state (total, free).", "state"),
		nodes: desc("capacity_inodes", "Inodes of the storage paths, by state (total, free).", "state"),
		parts: desc("partitions", "Raft groups that this node carries."),
		index: desc("applied_index_sum", "Sum of the applied Raft indexes of all partitions: its rate is that of changes."),

		epoch:    desc("map_epoch", "Epoch of the cluster's map that this node has."),
		members:  desc("nodes", "Nodes of the cluster, by state (joining, up, draining, gone, removed).", "state"),
		under:    desc("under_replicated_partitions", "Partitions with fewer good replicas than there shall be, by the map that this node has."),
		short:    desc("short_chunk_groups", "Chunk groups with a holder that is missing or gone, by the map that this node has."),
		left:     desc("moves_left", "What is not where it is planned (partitions, chunk_groups), by the map that this node has.", "what"),
		lacking:  desc("under_replicated_chunks", "Live chunks that this node lacked when it last compared, less what it has fetched since."),
		corrupt:  desc("corrupt_chunks_total", "Copies and shards of this node that were found damaged, since its start."),
		lost:     desc("lost_chunks", "Live chunks of which no holder has a good copy, as this node found."),
		repaired: desc("repaired_chunks_total", "Copies and shards that this node fetched from others, also of groups that moved here, since its start."),
		fetched:  desc("repaired_bytes_total", "Bytes that came over the network for them."),
		dropped:  desc("moved_chunks_total", "Files of chunks that moved away from this node, since its start."),
		waiting:  desc("repairs_waiting", "Copies that are known to be missing or bad, and not dealt with yet."),
		toGo:     desc("chunk_bytes_to_go", "Bytes that this node is fetching, or that wait for their turn under the rate."),
	}
}

// Describe implements prometheus.Collector.
func (e *engineCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{e.ready, e.bytes, e.nodes, e.parts, e.index,
		e.epoch, e.members, e.under, e.short, e.left, e.lacking, e.corrupt, e.lost, e.repaired, e.fetched, e.dropped, e.waiting, e.toGo} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (e *engineCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if !e.of.attached.Load() {
		gauge(e.ready, 0)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	st, err := e.of.node.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(e.ready, err)
		return
	}
	ready, applied := 0.0, 0.0
	if st.Ready {
		ready = 1
	}
	for _, p := range st.Partitions {
		applied += float64(p.Applied)
	}
	gauge(e.ready, ready)
	gauge(e.bytes, float64(st.Usage.TotalBytes), "total")
	gauge(e.bytes, float64(st.Usage.FreeBytes), "free")
	gauge(e.nodes, float64(st.Usage.TotalInodes), "total")
	gauge(e.nodes, float64(st.Usage.FreeInodes), "free")
	gauge(e.parts, float64(len(st.Partitions)))
	out <- prometheus.MustNewConstMetric(e.index, prometheus.CounterValue, applied)
	e.collectCluster(out, st)
}

// collectCluster adds what the node knows of its cluster, and of damage.
func (e *engineCollector) collectCluster(out chan<- prometheus.Metric, st replication.Status) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, float64(v), labels...)
	}
	states := map[string]int64{"joining": 0, "up": 0, "draining": 0, "gone": 0, "removed": 0}
	for _, n := range st.Nodes {
		states[n.State]++
	}
	for state, n := range states {
		send(e.members, prometheus.GaugeValue, n, state)
	}
	send(e.epoch, prometheus.GaugeValue, int64(st.Epoch))
	send(e.under, prometheus.GaugeValue, int64(st.Progress.UnderReplicated))
	send(e.short, prometheus.GaugeValue, int64(st.Progress.ShortGroups))
	send(e.left, prometheus.GaugeValue, int64(st.Progress.PartitionsLeft), "partitions")
	send(e.left, prometheus.GaugeValue, int64(st.Progress.GroupsLeft), "chunk_groups")
	c := st.Chunks
	send(e.lacking, prometheus.GaugeValue, c.UnderReplicated)
	send(e.corrupt, prometheus.CounterValue, c.Corrupt)
	send(e.lost, prometheus.GaugeValue, c.Lost)
	send(e.repaired, prometheus.CounterValue, c.Repaired)
	send(e.fetched, prometheus.CounterValue, c.RepairedBytes)
	send(e.dropped, prometheus.CounterValue, c.Dropped)
	send(e.toGo, prometheus.GaugeValue, c.BytesToGo)
	send(e.waiting, prometheus.GaugeValue, int64(c.Waiting))
}
