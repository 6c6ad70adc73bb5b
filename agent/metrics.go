package agent

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"dive-agent/report"
	"dive-agent/state"
)

// counters are what only events can tell; the rest is read from the agent when it is asked.
type counters struct {
	rounds  *prometheus.CounterVec
	changes *prometheus.CounterVec
	took    *prometheus.HistogramVec
	looks   *prometheus.HistogramVec
}

func newCounters() counters {
	return counters{
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dive_agent_rounds_total", Help: "Passes over an instance's graph, by how they ended.",
		}, []string{"instance", "outcome"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dive_agent_changes_total", Help: "Changes made to an instance, by how they ended.",
		}, []string{"instance", "outcome"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dive_agent_round_duration_seconds", Help: "How long passes took.",
			Buckets: []float64{.02, .05, .1, .2, .5, 1, 5, 15, 60, 180, 600},
		}, []string{"instance"}),
		looks: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dive_agent_look_duration_seconds", Help: "How long it took to look at a node and to plan what is to change.",
			Buckets: []float64{.005, .02, .1, .5, 2, 10, 60},
		}, []string{"instance", "node"}),
	}
}

// Metrics gives the registry of everything that is measured; docs/operations.md lists it.
func (a *Agent) Metrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.counters.rounds, a.counters.changes, a.counters.took, a.counters.looks, gauges{a},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

var (
	followedDesc = prometheus.NewDesc("dive_agent_source_followed", "1 while the fleet repository can be polled.", nil, nil)
	answeredDesc = prometheus.NewDesc("dive_agent_source_answered_timestamp_seconds", "When the fleet repository last answered a poll.", nil, nil)
	acceptedDesc = prometheus.NewDesc("dive_agent_revision_accepted", "1 while the newest revision is the one in force, 0 while it is refused.", nil, nil)
	phaseDesc    = prometheus.NewDesc("dive_agent_instance_phase", "1 for the phase the instance is in.", []string{"instance", "phase"}, nil)
	readyDesc    = prometheus.NewDesc("dive_agent_node_ready", "1 while a node of the instance's graph is in sync and ready.", []string{"instance", "node"}, nil)
	outboxDesc   = prometheus.NewDesc("dive_agent_outbox_entries", "Reports that wait for delivery, or were given up.", []string{"kind", "state"}, nil)
)

// gauges reads the agent as it is when it is asked.
type gauges struct{ agent *Agent }

// Describe is prometheus.Collector.
func (g gauges) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{followedDesc, answeredDesc, acceptedDesc, phaseDesc, readyDesc, outboxDesc} {
		out <- desc
	}
}

// Collect is prometheus.Collector.
func (g gauges) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	overview, err := g.agent.Overview(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(phaseDesc, err)
		return
	}
	gauge(followedDesc, one(overview.Source.Err == ""))
	if !overview.Source.Polled.IsZero() {
		gauge(answeredDesc, float64(overview.Source.Polled.UnixMilli())/1000)
	}
	gauge(acceptedDesc, one(overview.Refused == nil))
	for _, status := range overview.Instances {
		for _, phase := range []report.Phase{report.Pending, report.Progressing, report.Ready, report.Degraded, report.Blocked, report.Suspended, report.Removing, report.Removed} {
			gauge(phaseDesc, one(status.Phase == phase), status.Instance, string(phase))
		}
		for _, node := range status.Nodes {
			if !status.Seen.IsZero() {
				break // of an instance that rests nobody knows
			}
			gauge(readyDesc, one(node.State == string(NodeDone)), status.Instance, node.ID)
		}
	}
	g.outbox(ctx, gauge, out)
}

func (g gauges) outbox(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string), out chan<- prometheus.Metric) {
	counts := map[[2]string]float64{}
	err := g.agent.Store.View(ctx, func(r state.Reader) error {
		pending, err := r.Outbox("")
		if err != nil {
			return err
		}
		dead, err := r.DeadEntries("")
		for _, entry := range pending {
			counts[[2]string{entry.Kind, "pending"}]++
		}
		for _, entry := range dead {
			counts[[2]string{entry.Kind, "dead"}]++
		}
		return err
	})
	if err != nil {
		out <- prometheus.NewInvalidMetric(outboxDesc, err)
		return
	}
	for _, kind := range []string{state.KindStatus, state.KindWebhook} {
		for _, what := range []string{"pending", "dead"} {
			gauge(outboxDesc, counts[[2]string{kind, what}], kind, what)
		}
	}
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
