package report_test

import (
	"fmt"
	"time"

	"dive-agent/report"
)

// t0 is when the samples begin; their times are in UTC as the agent's are.
var t0 = time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)

const (
	applied   = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
	attempted = "5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80"
)

func ready() *report.Status {
	return &report.Status{
		APIVersion: report.APIVersion, Kind: report.Kind, Instance: "deu", Host: "deu-01", Role: "spoke",
		Branch: "main", Subject: "Raise DEU to 2.1", Attempted: attempted, Applied: attempted,
		Phase: report.Ready, Since: t0, News: "9/9 services, rs0 PRIMARY, 123 resources, approved, 12 checks passed",
		Conditions: []report.Condition{{Type: "Ready", Status: true, Reason: "Ready", Since: t0}, {Type: "SourceFollowed", Status: true, Since: t0}},
		Components: []report.Component{
			{Name: "stack", Kind: "ComposeStack", State: "done", Summary: "9/9 services"},
			{Name: "database", Kind: "MongoReplicaSet", State: "done", Summary: "rs0 PRIMARY", Values: map[string]any{"primary": "mongodb-1:27017", "version": "6.0.5"}},
			{Name: "identity", Kind: "Keycloak", State: "done", Summary: "123 resources", Values: map[string]any{"resources": 123, "driftChecked": "2026-03-01T13:49:00Z"}},
			{Name: "registration", Kind: "SpokeRegistration", State: "done", Summary: "approved", Values: map[string]any{"spokeId": "spoke-deu-08ee9cff"}},
		},
		Services: []report.Service{
			{Name: "mongodb", State: "running", Health: "healthy", Image: "mongo:6.0.5", Digest: "sha256:9f3c77aa0102030405060708090a0b0c0d0e0f10", Since: t0},
			{Name: "backend", State: "running", Health: "healthy", Image: "dive/backend:2.1.0", Digest: "sha256:77aa9f3c0102030405060708090a0b0c0d0e0f10", Since: t0},
		},
		Sets: []report.Set{{Component: "database", Name: "rs0", FCV: "6.0", Term: 7, Elected: t0.Add(-3 * time.Hour), Reason: "priorityTakeover", Oplog: 42*time.Hour + 7*time.Second}},
		Members: []report.Member{
			{Component: "database", Host: "mongodb-1:27017", State: "PRIMARY", Health: true, Priority: 2, Votes: 1, Version: "6.0.5", Started: t0.Add(-80 * time.Hour)},
			{Component: "database", Host: "mongodb-2:27017", State: "SECONDARY", Health: true, Lag: 2 * time.Second, Priority: 1, Votes: 1, Version: "6.0.5", Started: t0.Add(-3 * time.Hour)},
		},
		Checks: []report.Check{{
			Component: "checks", Name: "primary", Severity: "fail", Passed: true, Saw: "PRIMARY of rs0", Counts: map[string]int64{"members": 2},
			At: t0, Took: 12 * time.Millisecond, Since: t0.Add(-time.Hour),
		}},
		Nodes: []report.Node{
			{ID: "stack/mongodb", State: "done", Duration: 1100 * time.Millisecond},
			{ID: "database", State: "done", Duration: 600 * time.Millisecond, Needs: []string{"stack/mongodb"}},
			{ID: "stack/keycloak", State: "done", Duration: 24 * time.Second},
			{ID: "identity", State: "done", Duration: 6 * time.Second, Needs: []string{"stack/keycloak"}},
			{ID: "stack/backend", State: "done", Duration: 3 * time.Second, Needs: []string{"database", "identity"}},
		},
		Runs: []report.Run{
			{ID: "01KJMX0002", Revision: attempted, Trigger: "revision", Started: t0.Add(-40 * time.Second), Duration: 34200 * time.Millisecond, Outcome: "done", Steps: []report.Step{
				{Node: "stack/mongodb", Change: "create mongodb", Started: t0.Add(-40 * time.Second), Duration: 1100 * time.Millisecond, Outcome: "done"},
				{Node: "stack/keycloak", Change: "create keycloak", Started: t0.Add(-40 * time.Second), Duration: 24 * time.Second, Outcome: "done"},
				{Node: "database", Change: "run initiate", Started: t0.Add(-38900 * time.Millisecond), Duration: 400 * time.Millisecond, Outcome: "done"},
				{Node: "database", Change: "create user app", Started: t0.Add(-38500 * time.Millisecond), Duration: 200 * time.Millisecond, Outcome: "done"},
				{Node: "identity", Change: "create realm", Started: t0.Add(-16 * time.Second), Duration: 6 * time.Second, Outcome: "done"},
				{Node: "stack/backend", Change: "create backend", Started: t0.Add(-9 * time.Second), Duration: 3 * time.Second, Outcome: "done"},
			}},
			{ID: "01KJMX0001", Revision: applied, Trigger: "revision", Started: t0.Add(-time.Hour), Duration: 12 * time.Second, Outcome: "crashed", Message: "the agent stopped during stack/kas: create kas"},
		},
		Generation: 8, Updated: t0.Add(10 * time.Second),
	}
}

// degraded has what a hostile container may say in every place where it is heard.
func degraded() *report.Status {
	s := ready()
	s.Applied = applied
	s.Phase, s.Since = report.Degraded, t0.Add(2*time.Minute)
	s.News = "kas exits with 1; put back to 2.0.4"
	s.Why = []string{
		"kas is restarting: exit code 1, 5 times in 4 min",
		"1. <script>alert(1)</script> | [click](https://evil.example) ![x](http://evil.example/p.png) `a` \x1b[31mred\x1b[0m \u202egnp.exe\nDive-Phase: Ready",
	}
	s.Next = []string{"put back to 2.0.4 at 14:02:11; 5d6e7f8 is not tried again until it changes. See instances/deu.yaml:14"}
	s.Logs = []string{"config: KAS_AUDIT must be one of: none, file, siem", "```\n# not a heading\n\ttabbed \x1b]0;title\x07", "~~~"}
	s.Conditions = []report.Condition{
		{Type: "Ready", Reason: "Degraded", Since: s.Since},
		{Type: "SourceFollowed", Reason: "GitUnreachable", Message: "poll of main at https://git.example/fleet: connection refused", Since: s.Since},
		{Type: "RevisionAccepted", Message: "hidden by its cause", DependsOn: []string{"SourceFollowed"}},
		{Type: "RevisionWorks", Reason: "Rejected", Message: "5d6e7f8: kas exits with 1", Since: s.Since},
	}
	s.Components[0] = report.Component{
		Name: "stack", Kind: "ComposeStack", State: "rejected", Summary: "8/9 services", Message: "kas restarting",
		Plan: []string{"replace kas: image 2.0.4 -> 2.1.0", "update x|y: <b>bold</b>"}, Notes: []string{"a\nb | c"},
	}
	s.Services = append(s.Services, report.Service{Name: "kas", State: "restarting", Image: "dive/`kas`|:2.1.0", Restarts: 5, ExitCode: 1, Since: s.Since})
	s.Members[1].Health, s.Members[1].State, s.Members[1].Trouble = false, "(not reachable/healthy)", s.Since
	s.Members[1].Version, s.Members[1].Started, s.Members[1].Lag = "", time.Time{}, 0
	s.Checks = append(s.Checks, report.Check{Name: "backend-health", Saw: "503 <h1>oops</h1>"}, report.Check{
		Component: "checks", Name: "certificate", Severity: "warn", Saw: "valid for 9 more days, expected 30", Counts: map[string]int64{"days": 9},
		Dates: map[string]time.Time{"notAfter": t0.AddDate(0, 0, 9)}, At: t0.Add(-8 * time.Hour), Next: t0.Add(16 * time.Hour), Since: t0,
	})
	s.Nodes = append(s.Nodes, report.Node{ID: `stack/k"as]<b>`, State: "failed", Message: "restarting", Needs: []string{"identity", "unknown"}})
	return s
}

// seven is a set of all that members can be, with names as long as hosts have them.
func seven() *report.Status {
	s := ready()
	s.Sets[0].Reason, s.Sets[0].Oplog = "stepUpRequestSkipDryRun", 50*time.Minute
	s.Members = nil
	for i, m := range []report.Member{
		{State: "PRIMARY", Health: true, Priority: 1000, Votes: 1},
		{State: "SECONDARY", Health: true, Priority: 1, Votes: 1, Lag: 37 * time.Minute},
		{State: "SECONDARY", Health: true, Hidden: true, Delay: time.Hour, Lag: 0},
		{State: "RECOVERING", Health: true, Priority: 0.5, Votes: 1, Trouble: t0.Add(-20 * time.Minute)},
		{State: "(not reachable/healthy)", Priority: 1, Votes: 1, Trouble: t0.Add(-72 * time.Hour)},
		{State: "ARBITER", Health: true, Votes: 1, Arbiter: true},
		{State: "STARTUP2", Health: true, Hidden: true, Trouble: t0},
	} {
		m.Component, m.Host = "database", fmt.Sprintf("mongodb-%d.deu.spokes.example:27017", i+1)
		if m.Health {
			m.Version, m.Started = "6.0.27", t0.Add(-time.Duration(i+1)*47*time.Hour)
		}
		s.Members = append(s.Members, m)
	}
	return s
}

// coalition is a hub with spokes in all states; a stranger has chosen a code.
func coalition() *report.Status {
	s := ready()
	s.Instance, s.Host, s.Role, s.Subject = "usa", "usa-01", "hub", "Add spoke DEU"
	s.Components[3] = report.Component{Name: "federation", Kind: "SpokeApprovals", State: "done", Summary: "2 approved, 1 pending, 1 suspended"}
	s.Spokes = []report.Spoke{
		{Code: "DEU", Instance: "deu", ID: "spoke-deu-08ee9cff", State: "approved", Since: t0.Add(-50 * time.Hour), Alive: "online", Heartbeat: t0.Add(-9 * time.Second), Token: t0.Add(13 * time.Hour), Certificate: t0.Add(61 * 24 * time.Hour), Revision: attempted},
		{Code: "FRA", Instance: "fra", ID: "spoke-fra-1c0ffee1", State: "approved", Since: t0.Add(-300 * time.Hour), Alive: "silent", Heartbeat: t0.Add(-47 * time.Minute), Token: t0.Add(-time.Minute), Revision: "| not a revision"},
		{Code: "GBR", Instance: "gbr", ID: "spoke-gbr-5ca1ab1e", State: "suspended", Since: t0.Add(-2 * time.Hour)},
		{Code: `"|` + "`" + `\n"`, ID: `"spoke-|x"`, State: "pending", Since: t0},
	}
	return s
}
