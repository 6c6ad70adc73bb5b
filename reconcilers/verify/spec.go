package verify

import (
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"dive-agent/desired"
)

// Kind is Verification as manifests know it.
var Kind = desired.Kind{
	Name: "Verification",
	Doc:  "Declared checks of what an instance does; a failed check of severity fail is a failed instance.",
	New:  func() any { return new(Spec) },
}

// Spec is the component's part of a manifest.
type Spec struct {
	Checks   []Check          `yaml:"checks" required:"true" doc:"The checks. They run at the same time."`
	Schedule string           `yaml:"schedule" literal:"true" doc:"When the checks are made: five fields as in cron, in UTC unless it begins with CRON_TZ=Europe/Brussels or another zone, or @every 10m. They are made besides after each change of the instance, when the agent starts, while one fails, and by dive-agent verify. Default: whenever the instance is looked at (resync in agent.yaml)."`
	Within   desired.Duration `yaml:"within" default:"30s" doc:"How long failing checks are waited for before they count as failed: what was just changed needs its time."`
	Last     bool             `yaml:"last" default:"true" doc:"Run after all other components. false: only after what the checks name."`

	Position desired.Position
}

var (
	_ desired.Validator = (*Spec)(nil)
	_ desired.Needer    = (*Spec)(nil)
)

// Severities of a check.
const (
	severityFail = "fail"
	severityWarn = "warn"
)

// always is the schedule of a check that is made with each look, whatever the suite's schedule is.
const always = "always"

// Check is one check: a name and exactly one of the kinds.
type Check struct {
	Name        string           `yaml:"name" required:"true" doc:"Name in the status."`
	Severity    string           `yaml:"severity" default:"fail" enum:"fail,warn" doc:"What a failure is. fail: the instance is Degraded, and dive-agent verify ends with 1. warn: a note in the status."`
	Timeout     desired.Duration `yaml:"timeout" default:"10s" doc:"Limit of one try."`
	Schedule    string           `yaml:"schedule" literal:"true" doc:"When this check is made, in place of the suite's schedule. always: whenever the instance is looked at."`
	When        desired.Expr     `yaml:"when" doc:"The check is made only where this is true, such as ${otelHealthURL != \"\"}. Default: true."`
	HTTP        *HTTP            `yaml:"http" doc:"Ask a URL."`
	TCP         *TCP             `yaml:"tcp" doc:"Connect to a port."`
	Mongo       *Mongo           `yaml:"mongo" doc:"Ask MongoDB: state of a member, documents, a change stream, any command."`
	SQL         *SQL             `yaml:"sql" doc:"Run a query on PostgreSQL, read only."`
	Audit       *Audit           `yaml:"audit" doc:"Look for the tables, views and functions of the audit log in PostgreSQL, and for databases."`
	Logs        *Logs            `yaml:"logs" doc:"Look for a text in a service's log."`
	Certificate *Certificate     `yaml:"certificate" doc:"Look at a server's certificate."`
	OIDC        *OIDC            `yaml:"oidc" doc:"Read an OpenID provider's metadata and keys."`
	Federation  *Federation      `yaml:"federation" doc:"Look at the federation with a partner: links in both directions, the spoke approved at the hub, its heartbeat young."`
	Policy      *Policy          `yaml:"policy" doc:"Compare the revision of the policies that OPA has with the one that an OPAL server hands out. The OPAL client beside OPA must run with OPAL_OPA_HEALTH_CHECK_POLICY_ENABLED."`

	Position desired.Position
}

func (c Check) timeout() time.Duration {
	if c.Timeout <= 0 {
		return 10 * time.Second
	}
	return c.Timeout.Std()
}

func (c Check) severity() string {
	if c.Severity == "" {
		return severityFail
	}
	return c.Severity
}

// schedule is when a check is made; nil: with each look.
func (s *Spec) schedule(c Check) cron.Schedule {
	text := c.Schedule
	if text == "" {
		text = s.Schedule
	}
	if text == "" || text == always {
		return nil
	}
	schedule, err := cron.ParseStandard(text)
	if err != nil { // refused when the manifest was read
		return nil
	}
	return schedule
}

// kindNames are the kinds of a check, as its manifest has them.
var kindNames = []string{"http", "tcp", "mongo", "sql", "audit", "logs", "certificate", "oidc", "federation", "policy"}

// kinds lists the kinds that the check has; a right one has exactly one.
func (c Check) kinds() []string {
	var list []string
	set := []bool{
		c.HTTP != nil, c.TCP != nil, c.Mongo != nil, c.SQL != nil, c.Audit != nil, c.Logs != nil, c.Certificate != nil, c.OIDC != nil,
		c.Federation != nil, c.Policy != nil,
	}
	for i, name := range kindNames {
		if set[i] {
			list = append(list, name)
		}
	}
	return list
}

// service is the service that the check talks to, or "".
func (c Check) service() string {
	switch {
	case c.HTTP != nil:
		return c.HTTP.Service
	case c.TCP != nil:
		return c.TCP.Service
	case c.Mongo != nil:
		return c.Mongo.Service
	case c.SQL != nil:
		return c.SQL.Service
	case c.Audit != nil:
		return c.Audit.Service
	case c.Logs != nil:
		return c.Logs.Service
	case c.Certificate != nil:
		return c.Certificate.Service
	case c.Policy != nil:
		return c.Policy.Service
	}
	return ""
}

// database is how the check finds MongoDB, or nil.
func (c Check) database() *MongoPlace {
	switch {
	case c.Mongo != nil:
		return &c.Mongo.MongoPlace
	case c.Federation != nil:
		return &c.Federation.MongoPlace
	}
	return nil
}

// leftOut says whether the manifest's values switch the check off.
func (c Check) leftOut(at *desired.Check) bool {
	if at.Scope == nil || c.When.IsZero() {
		return false
	}
	v, err := c.When.Eval(at.Scope)
	return err == nil && v.Known() && v.Go() == false
}

// Needs asks for the services and outputs that the checks use, and, unless told otherwise, for everything else of the
// instance: checks come last.
func (s *Spec) Needs(c *desired.Check) []desired.Need {
	var needs []desired.Need
	for _, check := range s.Checks {
		if check.leftOut(c) {
			continue
		}
		if service := check.service(); service != "" {
			needs = append(needs, desired.Need{Part: service, Why: "check " + check.Name, Position: check.Position})
		}
		place := check.database()
		if place == nil || !place.URI.IsZero() {
			continue
		}
		if component := place.component(c.Instance); component != "" {
			needs = append(needs, desired.Need{Component: component, Output: "uri", Why: "check " + check.Name, Position: check.Position})
		}
	}
	if s.Last && c.Instance != nil {
		for _, other := range c.Instance.Components {
			if _, checks := other.Spec.(*Spec); !checks {
				needs = append(needs, desired.Need{Component: other.Name, Why: "checks come last", Position: s.Position})
			}
		}
	}
	return needs
}

// Validate checks what the types cannot say.
func (s *Spec) Validate(c *desired.Check) {
	if len(s.Checks) == 0 {
		c.Errorf(s.Position, "there is no check in the list of checks")
	}
	if problem := badSchedule(s.Schedule); problem != "" {
		c.Errorf(c.At("schedule"), "%s", problem)
	}
	names := map[string]bool{}
	for i, check := range s.Checks {
		if names[check.Name] {
			c.Errorf(check.Position, "check %q stands twice", check.Name)
		}
		names[check.Name] = true
		check.validate(c, func(path ...string) desired.Position {
			return c.At(append([]string{"checks", strconv.Itoa(i)}, path...)...)
		})
	}
}

// validate reports what is wrong with one check; at gives the place of a field of it.
func (c Check) validate(by *desired.Check, at func(path ...string) desired.Position) {
	if problem := badSchedule(c.Schedule); problem != "" && c.Schedule != always {
		by.Errorf(at("schedule"), "check %q: %s", c.Name, problem)
	}
	if by.Scope != nil && !c.When.IsZero() {
		if v, err := c.When.Eval(by.Scope); err == nil && v.Known() {
			if _, truth := v.Go().(bool); !truth {
				by.Errorf(at("when"), "check %q: when must be true or false, such as ${url != \"\"}", c.Name)
			}
		}
	}
	kinds := c.kinds()
	if len(kinds) != 1 {
		have := "none"
		if len(kinds) > 0 {
			have = strings.Join(kinds, ", ")
		}
		by.Errorf(c.Position, "check %q needs exactly one of %s; it has %s", c.Name, strings.Join(kindNames, ", "), have)
		return
	}
	for _, p := range c.problems(by) {
		by.Errorf(at(append([]string{kinds[0]}, p.path...)...), "check %q: %s", c.Name, p.text)
	}
}

// badSchedule says what is wrong with a schedule, or "".
func badSchedule(text string) string {
	if text == "" {
		return ""
	}
	if _, err := cron.ParseStandard(text); err != nil {
		return "schedule " + strconv.Quote(text) + " is no cron expression: " + err.Error()
	}
	return ""
}
