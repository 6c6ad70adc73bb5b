package verify

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"dive-agent/desired"
)

// mongo asks what the check asks for, and holds the answer against what is expected.
func (t *try) mongo(ctx context.Context, spec *Mongo) outcome {
	db, err := t.mongoDatabase(ctx, spec)
	if err != nil {
		return failed(err)
	}
	expect, err := t.tree(spec.Expect)
	if err != nil {
		return failed(err)
	}
	if db.Name() == "" && spec.Command.IsZero() && spec.Member == "" {
		return fail("the connection string names no database, and the check neither")
	}
	switch {
	case spec.Count != "":
		return t.count(ctx, db, spec, expect)
	case spec.Every != nil:
		return t.every(ctx, db, spec.Every)
	case spec.ChangeStream:
		return changeStream(ctx, db)
	case spec.Member != "":
		return member(ctx, db.Client(), spec)
	}
	if spec.Database == "" {
		db = db.Client().Database("admin")
	}
	return t.command(ctx, db, spec, expect)
}

// mongoDatabase is the database that the check is about. Its name is empty when nothing names one.
func (t *try) mongoDatabase(ctx context.Context, spec *Mongo) (*driver.Database, error) {
	uri, err := t.mongoURI(&spec.MongoPlace)
	if err != nil {
		return nil, err
	}
	client, name, err := t.mongoClient(ctx, uri, spec)
	if err != nil {
		return nil, err
	}
	if spec.Database != "" {
		name = spec.Database
	}
	return client.Database(name), nil
}

// mongoURI is the check's own connection string, or the output of the component it uses.
func (t *try) mongoURI(spec *MongoPlace) (string, error) {
	e := spec.URI
	if e.IsZero() {
		component := spec.component(t.target.Instance)
		if component == "" {
			return "", errors.New("neither uri nor component is given, and the instance has not exactly one " + replicaSetKind)
		}
		var problems desired.Problems
		if e, problems = desired.ParseExpr("${"+component+".uri}", t.check.Position); len(problems) > 0 {
			return "", problems
		}
	}
	return t.text(e)
}

// ordered makes a command of a map: its first field is the command's name, so the manifest's order must stay.
func (t *try) ordered(tree desired.Tree) (bson.D, error) {
	command := bson.D{}
	for _, field := range tree.Fields() {
		var value any
		var err error
		if field.Value.IsMap() {
			value, err = t.ordered(field.Value)
		} else {
			value, err = t.tree(field.Value)
		}
		if err != nil {
			return nil, err
		}
		command = append(command, bson.E{Key: field.Name, Value: value})
	}
	return command, nil
}

// mongoError leaves out of an error what only the driver's author reads.
func mongoError(err error) error {
	var command driver.CommandError
	if errors.As(err, &command) && command.Name != "" {
		return fmt.Errorf("%s (%s, %d)", command.Message, command.Name, command.Code)
	}
	return err
}

// mongoPool keeps clients between calls: a login costs more than a check. A client that an observation of its component
// did not use is closed after it.
type mongoPool struct {
	mu      sync.Mutex
	clients map[mongoKey]*pooled
}

type mongoKey struct{ component, service, uri, trust string }

type pooled struct {
	client   *driver.Client
	database string
	dialer   *serviceDialer
	used     bool
}

// serviceDialer finds services as the latest try knows them.
type serviceDialer struct {
	latest  atomic.Pointer[try]
	service string // the only one to dial, or ""
}

// DialContext implements the driver's dialer.
func (d *serviceDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	t := d.latest.Load()
	if d.service != "" {
		_, text, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		if address, err = t.find(ctx, d.service, port); err != nil {
			return nil, err
		}
	} else {
		address = t.locate(ctx, address)
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
}

func newMongoPool() *mongoPool { return &mongoPool{clients: map[mongoKey]*pooled{}} }

// mongoClient gives a client and the default database of the connection string. When none of its servers runs that is
// said at once: the driver would look for one until the check's time is over.
func (t *try) mongoClient(ctx context.Context, uri string, spec *Mongo) (*driver.Client, string, error) {
	service := spec.Service
	uri = withoutFiles(uri)
	parsed, err := connstring.ParseAndValidate(uri)
	if err != nil || parsed.Scheme != connstring.SchemeMongoDB {
		return nil, "", errors.New("the connection string is none of MongoDB (mongodb://)")
	}
	names := parsed.Hosts
	if service != "" {
		names = []string{service}
	}
	if err := t.anyRuns(ctx, names); err != nil {
		return nil, "", err
	}
	trust, secure, err := t.mongoTLS(spec, parsed.SSL)
	if err != nil {
		return nil, "", err
	}
	key := mongoKey{componentKey(t.target), service, uri, trust}
	p := t.r.mongo
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.clients[key]; have != nil {
		have.dialer.latest.Store(t)
		have.used = true
		return have.client, have.database, nil
	}
	dialer := &serviceDialer{service: service}
	dialer.latest.Store(t)
	o := options.Client().ApplyURI(uri).SetDialer(dialer).SetAppName("dive-agent").SetMaxPoolSize(atOnce).
		SetServerMonitoringMode("poll").SetHeartbeatInterval(time.Minute)
	if secure != nil {
		o.SetTLSConfig(secure)
	}
	if service != "" {
		o.SetDirect(true).SetHosts(parsed.Hosts[:1])
		o.ReplicaSet = nil
	}
	client, err := driver.Connect(o)
	if err != nil {
		return nil, "", errors.New("the connection string is none of MongoDB (mongodb://)")
	}
	p.clients[key] = &pooled{client, parsed.Database, dialer, true}
	return client, parsed.Database, nil
}

// withoutFiles takes the paths out of a connection string that hold in the containers of clients, and not here.
func withoutFiles(uri string) string {
	before, query, found := strings.Cut(uri, "?")
	if !found {
		return uri
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		switch name, _, _ := strings.Cut(part, "="); strings.ToLower(name) {
		case "tlscafile", "tlscertificatekeyfile", "sslcertificateauthorityfile", "sslclientcertificatekeyfile":
		default:
			kept = append(kept, part)
		}
	}
	return before + "?" + strings.Join(kept, "&")
}

// mongoTLS is how the servers are trusted where the connection string asks for TLS, and a digest of that.
func (t *try) mongoTLS(spec *Mongo, asked bool) (digest string, config *tls.Config, err error) {
	if !asked {
		return "", nil, nil
	}
	ca, err := t.authorities(spec.Trust)
	if err != nil {
		return "", nil, err
	}
	if config, err = t.trusting(ca, spec.Service); err != nil {
		return "", nil, err
	}
	own, err := t.text(spec.Certificate)
	if err != nil {
		return "", nil, err
	}
	if config.Certificates, err = pairOf(own); err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256([]byte(ca + "\x00" + own))
	return hex.EncodeToString(sum[:]), config, nil
}

// anyRuns says why none of the servers can be reached, when all of them are services that do not run. What is no plain
// name is no service.
func (t *try) anyRuns(ctx context.Context, names []string) error {
	var last error
	for _, name := range names {
		host, _, err := net.SplitHostPort(name)
		if err != nil {
			host = name
		}
		if host == "localhost" || strings.ContainsAny(host, ".:") {
			return nil
		}
		if _, last = t.target.Services.Find(ctx, host); last == nil {
			return nil
		}
	}
	return last
}

// sweep closes the component's clients that were not used since the last sweep.
func (p *mongoPool) sweep(component string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, have := range p.clients {
		switch {
		case key.component != component:
		case have.used:
			have.used = false
		default:
			disconnect(have.client)
			delete(p.clients, key)
		}
	}
}

func (p *mongoPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, have := range p.clients {
		disconnect(have.client)
		delete(p.clients, key)
	}
}

func disconnect(client *driver.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = client.Disconnect(ctx)
}
