package mongo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// Ids of log lines that name a trouble which no command tells without a login.
const logForeignConfig = `"id":21406` // the local configuration's set name differs from --replSet

const (
	maxLogLines = 2000
	maxLogBytes = 4 << 20
)

func isBlocked(err error) bool {
	var blocked *reconcilers.BlockedError
	return errors.As(err, &blocked)
}

func (s *session) foreignSet(host, name string) error {
	return &reconcilers.BlockedError{
		Reason:  "ForeignReplicaSet",
		Message: fmt.Sprintf("the data of %s belongs to replica set %s, not to %s", host, name, s.want.set),
		Do:      "Put the right volume back, or name that set in the manifest (name) and in mongod's --replSet",
	}
}

func (s *session) noReplSet(host string) error {
	return &reconcilers.BlockedError{
		Reason:  "NoReplicaSet",
		Message: host + " runs without --replSet",
		Do:      fmt.Sprintf("Start mongod with --replSet %s in the Compose file", s.want.set),
	}
}

func (s *session) lostData(host string) error {
	return &reconcilers.BlockedError{
		Reason:  "DataLost",
		Message: fmt.Sprintf("%s is empty, but replica set %s (%s) was here before", host, s.want.set, s.memory.ReplicaSetID),
		Do:      "Put its volume back or restore a backup into it; to begin with an empty set, remove " + s.memory.path(),
	}
}

// arbiterInPlace is for a member with data that is to be an arbiter, or the other way round. The server takes it and was
// seen to abort, over what it still had to apply or over an oplog that it has not; the manual has it begin anew.
func arbiterInPlace(host string, arbiter bool) error {
	message := host + " is an arbiter, and cannot become a member with data as it runs"
	if arbiter {
		message = host + " has the set's data, and an arbiter begins without any"
	}
	return &reconcilers.BlockedError{
		Reason: "ArbiterInPlace", Message: message,
		Do: "Take the member out of the manifest first; when it has left the set, give its service an empty volume and name it again",
	}
}

func (s *session) wrongPassword(host string) error {
	do := "The volume was made with another password, and MONGO_INITDB_ROOT_PASSWORD counts only for an empty volume. " +
		"Put the former secret back, or set this password in the server with updateUser"
	if len(s.want.keys.file) == 0 {
		do += ". If the server has no user at all, name the members' key (keyfile) in the manifest, so that the first one can be made"
	}
	return &reconcilers.BlockedError{
		Reason:  "WrongPassword",
		Message: fmt.Sprintf("%s refuses the password of user %s", host, s.want.root.name),
		Do:      do,
	}
}

func (s *session) wrongKey(hosts string) error {
	return &reconcilers.BlockedError{
		Reason:  "WrongKeyfile",
		Message: fmt.Sprintf("%s and the other members of %s do not accept each other's key (status says authenticated: false)", hosts, s.want.set),
		Do: "Give all members' services the same key file and restart the one that differs; with x.509, certificates whose organization, unit and " +
			"domain are equal, by one authority",
	}
}

// lostMajority tells who is left and how far each has come. why is what keeps the order in the manifest, if there is one,
// from being carried out.
func (s *session) lostMajority(st status, c config, reachable, needed int, why error) error {
	var seen, hosts []string
	for _, m := range st.Members {
		if m.Health == 1 {
			seen = append(seen, fmt.Sprintf("%s (%s, at %s)", m.Host, m.StateName, m.Optime.UTC().Format(time.RFC3339)))
			hosts = append(hosts, m.Host)
		}
	}
	return &reconcilers.BlockedError{
		Reason: "LostMajority",
		Message: fmt.Sprintf("%s has no primary: %d of the %d votes that an election needs are reachable: %s",
			s.want.set, reachable, needed, strings.Join(seen, ", ")),
		Do: fmt.Sprintf("Bring the other members back. Only if they are lost for ever and hold no primary of their own, merge into this component "+
			"force: {survivors: [%s], version: %d, term: %d}. What was written to the lost ones alone is lost then", strings.Join(hosts, ", "), c.Version, c.term()),
		Err: why,
	}
}

// strangeConfig explains a member that has a configuration it is not in.
func (s *session) strangeConfig(ctx context.Context, client *driver.Client, host string) error {
	c, _, err := getConfig(ctx, client, false)
	switch {
	case err == nil && c.Name != s.want.set:
		return s.foreignSet(host, c.Name)
	case err == nil:
		return &reconcilers.BlockedError{
			Reason:  "RemovedMember",
			Message: fmt.Sprintf("%s has the configuration of %s, but is not in it: it was removed, or its host name changed", host, s.want.set),
			Do:      "Start the set's other members, or name the member as its configuration does: " + strings.Join(hostsOf(c), ", "),
		}
	}
	return fmt.Errorf("read the configuration of %s: %w", host, err)
}

func hostsOf(c config) []string {
	var hosts []string
	for _, m := range c.Members {
		hosts = append(hosts, m.Host)
	}
	return hosts
}

// enter gives a client that may do what is asked of it: the administrator's; or, as long as the server has no user at
// all, one that logs in with the members' key, or with nothing where mongod asks for nothing. isRoot is false then.
func (s *session) enter(ctx context.Context, m wantMember) (client *driver.Client, isRoot bool, err error) {
	client, err = s.logInRoot(ctx, m)
	if err == nil || !isCredentials(err) {
		return client, true, err
	}
	client, err = s.enterEmpty(ctx, m)
	if err != nil {
		return nil, false, err
	}
	users, err := countUsers(ctx, client)
	if hasCode(err, codeNotPrimaryOrSecondary) { // it tells nothing of its users before it is initiated
		return client, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("count the users of %s: %w", m.host, err)
	}
	if users > 0 {
		return nil, false, s.refusedRoot(ctx, m)
	}
	return client, false, nil
}

// enterEmpty logs in where no administrator can exist yet.
func (s *session) enterEmpty(ctx context.Context, m wantMember) (*driver.Client, error) {
	client, err := s.logInMember(ctx, m)
	if err != nil || client != nil {
		return client, err
	}
	client, err = s.logIn(ctx, m, login{})
	if err != nil {
		return nil, err
	}
	if _, err := countUsers(ctx, client); isCredentials(err) {
		return nil, s.refusedRoot(ctx, m)
	}
	return client, nil
}

// logInMember logs in as the members do among themselves; nil where the server takes neither key nor certificate for one
// of a member.
func (s *session) logInMember(ctx context.Context, m wantMember) (*driver.Client, error) {
	for i, key := range s.want.keys.all() {
		l := keyLogin(key)
		client, err := s.logInAs(ctx, m, l, fmt.Sprintf("%s.%d", l.id(), i))
		if err == nil || !isCredentials(err) {
			return client, err
		}
	}
	return s.logInX509(ctx, m)
}

// logInX509 is logInMember by the agent's certificate.
func (s *session) logInX509(ctx context.Context, m wantMember) (*driver.Client, error) {
	if s.want.tls == nil || len(s.want.tls.own) == 0 {
		return nil, nil
	}
	at, err := find(ctx, s.target.Services, m)
	if err != nil {
		return nil, err
	}
	if heard, _ := s.r.heard(s.component+"/"+m.host, at.identity()); !heard.tls {
		return nil, nil
	}
	client, err := s.logInAs(ctx, m, x509Login(), x509Login().id())
	if isCredentials(err) || hasCode(err, codeUserNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := countUsers(ctx, client); isCredentials(err) { // the certificate of a client
		return nil, nil
	}
	return client, nil
}

// anyLogin gives a client that may ask a member for its parameters; an arbiter knows no user.
func (s *session) anyLogin(ctx context.Context, m wantMember) (*driver.Client, error) {
	client, err := s.logInRoot(ctx, m)
	if !isCredentials(err) {
		return client, err
	}
	if client, memberErr := s.logInMember(ctx, m); client != nil {
		return client, memberErr
	}
	return nil, err
}

func (s *session) logIn(ctx context.Context, m wantMember, l login) (*driver.Client, error) {
	return s.logInAs(ctx, m, l, l.id())
}

// logInAny logs in with the first of the logins that the member's server takes. The error is that of the last one, or of a
// server that does not judge logins now; without logins there is neither client nor error.
func (s *session) logInAny(ctx context.Context, m wantMember, name string, logins ...login) (client *driver.Client, err error) {
	for _, l := range logins {
		if client, err = s.logInAs(ctx, m, l, name); !isCredentials(err) {
			return client, err
		}
	}
	return nil, err
}

// logInAs proves that the login works; a client that does not is not kept. A connection can lose its login while it
// lives: an initial sync replaces the users it was made with. One that has, or that its server closed, is made anew.
func (s *session) logInAs(ctx context.Context, m wantMember, l login, name string) (*driver.Client, error) {
	for again := true; ; again = false {
		client, err := s.client(ctx, m, l, name)
		if err != nil {
			return nil, err
		}
		var answer struct {
			Auth struct {
				Users []bson.Raw `bson:"authenticatedUsers"`
			} `bson:"authInfo"`
		}
		err = run(ctx, client, adminDatabase, bson.D{{Key: "connectionStatus", Value: 1}}, &answer)
		if err == nil && (l.name == "" || len(answer.Auth.Users) > 0 || !again) {
			return client, nil
		}
		s.r.pool.forget(clientKey{s.component, m.host, name})
		if again && driver.IsNetworkError(err) && !driver.IsTimeout(err) { // its server was restarted
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("log in to %s: %w", m.host, err)
		}
	}
}

// refusedRoot explains a refused administrator: the data may be another set's altogether.
func (s *session) refusedRoot(ctx context.Context, m wantMember) error {
	if name := s.foreignNameInLog(ctx, m); name != "" {
		return s.foreignSet(m.host, name)
	}
	return s.wrongPassword(m.host)
}

// foreignNameInLog finds the set name that mongod complained of at its start, or "".
func (s *session) foreignNameInLog(ctx context.Context, m wantMember) string {
	at, err := find(ctx, s.target.Services, m)
	if err != nil || !m.local() {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	log, err := s.target.Services.Logs(ctx, m.service, at.container.StartedAt, maxLogLines)
	if err != nil {
		return ""
	}
	defer func() { _ = log.Close() }()
	lines := bufio.NewScanner(io.LimitReader(log, maxLogBytes))
	lines.Buffer(nil, maxLogBytes)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), logForeignConfig) {
			continue
		}
		var line struct {
			Attributes struct {
				Local string `bson:"localConfigSetName"`
			} `bson:"attr"`
		}
		if bson.UnmarshalExtJSON(lines.Bytes(), false, &line) == nil && line.Attributes.Local != "" {
			return line.Attributes.Local
		}
		return "of another name"
	}
	return ""
}

func countUsers(ctx context.Context, client *driver.Client) (int, error) {
	var answer struct {
		Users []bson.Raw `bson:"users"`
	}
	err := run(ctx, client, adminDatabase, bson.D{{Key: "usersInfo", Value: bson.D{{Key: "forAllDBs", Value: true}}}}, &answer)
	return len(answer.Users), err
}
