package mongo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Limits of a question without login.
const (
	dialLimit     = 2 * time.Second
	helloLimit    = 5 * time.Second
	maxHelloBytes = 1 << 20
	opMsg         = 2013
)

// hello is a member's own view, given to anyone. Fields as in the manual's page of the command.
type hello struct {
	SetName           string           `bson:"setName"`
	IsReplicaSet      bool             `bson:"isreplicaset"`
	Message           string           `bson:"msg"`
	IsWritablePrimary bool             `bson:"isWritablePrimary"`
	Secondary         bool             `bson:"secondary"`
	Arbiter           bool             `bson:"arbiterOnly"`
	Me                string           `bson:"me"`
	Primary           string           `bson:"primary"`
	Version           *topologyVersion `bson:"topologyVersion"`
	LocalTime         time.Time        `bson:"localTime"`
	LastWrite         struct {
		Optime struct {
			Time bson.Timestamp `bson:"ts"`
		} `bson:"opTime"`
	} `bson:"lastWrite"`
	OK           float64 `bson:"ok"`
	ErrorMessage string  `bson:"errmsg"`
}

// serves says whether the member does what it is for in the set.
func (h hello) serves(set string) bool {
	return h.SetName == set && (h.IsWritablePrimary || h.Secondary || h.Arbiter)
}

// topologyVersion counts the changes of a server's view; asked with one, the server answers only at the next change.
type topologyVersion struct {
	Process bson.ObjectID `bson:"processId"`
	Counter int64         `bson:"counter"`
}

// probe is a connection without login that asks hello. The driver is not used for this: its clients log in before
// anything else, and wait half a second after a refused connection.
type probe struct {
	conn net.Conn
	id   int32
}

// openProbe connects to a member.
func (s *session) openProbe(ctx context.Context, m wantMember, at place) (*probe, error) {
	conn, err := s.dial(ctx, m, at)
	if err != nil {
		return nil, err
	}
	return &probe{conn: conn}, nil
}

func (p *probe) close() { _ = p.conn.Close() }

// hello asks once. With a version the server answers at the next change of its view, at the latest after wait.
func (p *probe) hello(ctx context.Context, after *topologyVersion, wait time.Duration) (hello, error) {
	command := bson.D{{Key: "hello", Value: 1}}
	limit := helloLimit
	if after != nil {
		command = append(command, bson.E{Key: "topologyVersion", Value: after}, bson.E{Key: "maxAwaitTimeMS", Value: wait.Milliseconds()})
		limit += wait
	}
	command = append(command, bson.E{Key: "$db", Value: adminDatabase})

	if err := p.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return hello{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, err := p.roundTrip(command)
	if ctx.Err() != nil {
		return hello{}, ctx.Err()
	}
	if err != nil {
		return hello{}, err
	}
	var h hello
	if err := bson.Unmarshal(answer, &h); err != nil {
		return hello{}, fmt.Errorf("read the answer to hello: %w", err)
	}
	if h.OK != 1 {
		return hello{}, fmt.Errorf("hello was refused: %s", h.ErrorMessage)
	}
	return h, nil
}

// version asks for the server's version, which it tells without a login; empty when it does not.
func (p *probe) version(ctx context.Context) string {
	if err := p.conn.SetDeadline(time.Now().Add(helloLimit)); err != nil {
		return ""
	}
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, err := p.roundTrip(bson.D{{Key: "buildInfo", Value: 1}, {Key: "$db", Value: adminDatabase}})
	if err != nil {
		return ""
	}
	version, _ := answer.Lookup("version").StringValueOK()
	return version
}

// roundTrip sends one OP_MSG with a single body section and reads its answer (MongoDB wire protocol, "OP_MSG").
func (p *probe) roundTrip(command bson.D) (bson.Raw, error) {
	body, err := bson.Marshal(command)
	if err != nil {
		return nil, err
	}
	p.id++
	message := make([]byte, 21, 21+len(body))
	binary.LittleEndian.PutUint32(message[0:], uint32(21+len(body)))
	binary.LittleEndian.PutUint32(message[4:], uint32(p.id))
	binary.LittleEndian.PutUint32(message[12:], opMsg)
	if _, err := p.conn.Write(append(message, body...)); err != nil {
		return nil, err
	}
	var header [21]byte
	if _, err := io.ReadFull(p.conn, header[:]); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header[0:])
	if binary.LittleEndian.Uint32(header[12:]) != opMsg || length < 26 || length > maxHelloBytes || header[20] != 0 {
		return nil, errors.New("what listens there does not speak MongoDB's protocol")
	}
	answer := make([]byte, length-21)
	if _, err := io.ReadFull(p.conn, answer); err != nil {
		return nil, err
	}
	if err := bson.Raw(answer).Validate(); err != nil {
		return nil, fmt.Errorf("what listens there does not speak MongoDB's protocol: %w", err)
	}
	return answer, nil
}
