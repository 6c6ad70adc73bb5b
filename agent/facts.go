package agent

import "dive-agent/report"

// fillFacts adds what a node tells of its service, its replica set, its spokes and its checks.
func (s situation) fillFacts(st *report.Status, n Node) {
	f := n.Facts
	if f.Service != nil {
		st.Services = append(st.Services, report.Service(*f.Service))
	}
	if v := f.Set; v != nil {
		st.Sets = append(st.Sets, report.Set{Component: n.Component, Name: v.Name, FCV: v.FCV, Term: v.Term, Elected: v.Elected, Reason: v.Reason, Oplog: v.Oplog, TLS: v.TLS})
	}
	for _, m := range f.Members {
		st.Members = append(st.Members, report.Member{
			Component: n.Component, Host: m.Host, On: m.On, State: m.State, Health: m.Health, Lag: m.Lag, Priority: m.Priority, Votes: m.Votes,
			Hidden: m.Hidden, Arbiter: m.Arbiter, Delay: m.Delay, Version: m.Version, Started: m.Started, Trouble: m.Trouble,
			Certificate: m.Certificate,
		})
	}
	for _, v := range f.Spokes {
		st.Spokes = append(st.Spokes, s.spokeOf(v))
	}
	for _, c := range f.Checks {
		c.Component = n.Component
		st.Checks = append(st.Checks, report.Check(c))
	}
}
