package mongo

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// Modes in their order, as the manual has them ("Upgrade a Cluster to Use TLS/SSL", "Upgrade from Keyfile Authentication
// to x.509 Authentication"). Members understand each other when their modes are equal or neighbours.
var (
	tlsModes  = []string{"disabled", "allowTLS", "preferTLS", "requireTLS"}
	authModes = []string{"keyFile", "sendKeyFile", "sendX509", "x509"}
)

// modes are what a server was started with. An empty one is not known.
type modes struct{ tls, auth string }

// String is for people.
func (m modes) String() string { return strings.Trim(m.tls+", "+m.auth, ", ") }

// modesOfCommand reads what a mongod of this command will run. A command that is not plainly mongod's, and one with a
// configuration file, tell only what they say.
func modesOfCommand(command []string) (m modes) {
	at := slices.IndexFunc(command, func(word string) bool { return path.Base(word) == "mongod" })
	if at < 0 && (len(command) == 0 || !strings.HasPrefix(command[0], "-")) {
		return modes{}
	}
	config := false
	for i := range command {
		name, value, joined := strings.Cut(command[i], "=")
		if !joined && i+1 < len(command) {
			value = command[i+1]
		}
		switch name {
		case "--tlsMode", "--sslMode":
			m.tls = strings.ReplaceAll(value, "SSL", "TLS")
		case "--clusterAuthMode":
			m.auth = value
		case "--config", "-f":
			config = true
		}
	}
	if m.tls == "" && !config {
		m.tls = tlsModes[0]
	}
	if m.auth == "" && !config {
		m.auth = authModes[0]
	}
	return m
}

// getModes asks a server. One that knows no keys and no certificates has no mode of authentication.
func getModes(ctx context.Context, client *driver.Client) (modes, error) {
	var answer struct {
		TLS  string `bson:"tlsMode"`
		Auth string `bson:"clusterAuthMode"`
	}
	err := run(ctx, client, adminDatabase, bson.D{{Key: "getParameter", Value: 1}, {Key: "tlsMode", Value: 1}, {Key: "clusterAuthMode", Value: 1}}, &answer)
	if err != nil {
		return modes{}, fmt.Errorf("read the modes of TLS and authentication: %w", err)
	}
	if !slices.Contains(authModes, answer.Auth) {
		answer.Auth = ""
	}
	return modes{answer.TLS, answer.Auth}, nil
}

// apart says whether a member of one mode and one of the other refuse each other. Modes that are not known are taken for
// ones that do not.
func apart(order []string, a, b string) bool {
	from, to := slices.Index(order, a), slices.Index(order, b)
	return from >= 0 && to >= 0 && max(from-to, to-from) > 1
}

// way names the steps between two modes, the last of them included.
func way(order []string, from, to string) string {
	a, b := slices.Index(order, from), slices.Index(order, to)
	steps := slices.Clone(order[min(a, b) : max(a, b)+1])
	if a > b {
		slices.Reverse(steps)
	}
	return strings.Join(steps[1:], ", then ")
}

// mayConnectAll refuses a change after which the member and one of the others would not speak to each other any more,
// before anything is touched.
func (s *session) mayConnectAll(ctx context.Context, m wantMember, changes []reconcilers.Change) error {
	var next modes
	for _, change := range changes {
		if found := modesOfCommand(change.Command); found != (modes{}) {
			next = found
		}
	}
	if next == (modes{}) {
		return nil
	}
	for _, other := range s.want.members {
		if other.host == m.host {
			continue
		}
		client, err := s.anyLogin(ctx, other)
		if err != nil {
			continue // whoever does not serve is waited for next
		}
		have, err := getModes(ctx, client)
		if err != nil {
			continue
		}
		if err := s.neighbours(m, other, have, next); err != nil {
			return err
		}
	}
	return nil
}

// neighbours refuses modes between which there is a step.
func (s *session) neighbours(m, other wantMember, have, next modes) error {
	message := func(option, next, have string) string {
		return fmt.Sprintf("%s cannot run with %s %s: %s runs with %s, and the two would not speak to each other", m.host, option, next, other.host, have)
	}
	do := func(option, steps string) string {
		return fmt.Sprintf("Merge one step at a time, each when all members run the one before: %s %s", option, steps)
	}
	switch {
	case apart(tlsModes, have.tls, next.tls):
		return &reconcilers.BlockedError{
			Reason: "TLSSkipsStep", Message: message("--tlsMode", next.tls, have.tls), Do: do("--tlsMode", way(tlsModes, have.tls, next.tls)),
		}
	case apart(authModes, have.auth, next.auth):
		return &reconcilers.BlockedError{
			Reason: "AuthenticationSkipsStep", Message: message("--clusterAuthMode", next.auth, have.auth),
			Do: do("--clusterAuthMode", way(authModes, have.auth, next.auth)),
		}
	}
	return nil
}
