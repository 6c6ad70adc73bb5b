package mongo

import (
	"context"
	"fmt"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
)

type setting struct {
	name  string
	value any // int or bool
}

// list gives the settings that the manifest names, by the server's names.
func (s Settings) list() []setting {
	var list []setting
	number := func(name string, value int) {
		if value != 0 {
			list = append(list, setting{name, value})
		}
	}
	number("electionTimeoutMillis", s.ElectionTimeoutMillis)
	number("heartbeatIntervalMillis", s.HeartbeatIntervalMillis)
	number("heartbeatTimeoutSecs", s.HeartbeatTimeoutSecs)
	number("catchUpTimeoutMillis", s.CatchUpTimeoutMillis)
	if s.ChainingAllowed != nil {
		list = append(list, setting{"chainingAllowed", *s.ChainingAllowed})
	}
	return list
}

// differs lists the settings that are set in the manifest and otherwise in the server.
func (s Settings) differs(c config) []string {
	var list []string
	for _, one := range s.list() {
		switch have := c.setting(one.name); have {
		case one.value:
		case nil:
			list = append(list, fmt.Sprintf("%s %v", one.name, one.value))
		default:
			list = append(list, fmt.Sprintf("%s %v -> %v", one.name, have, one.value))
		}
	}
	return list
}

func (s *session) changeSettings(c *config) (bool, error) {
	if len(s.want.settings.differs(*c)) == 0 {
		return false, nil
	}
	settings := bson.M{}
	for name, value := range c.Settings {
		settings[name] = value
	}
	for _, one := range s.want.settings.list() {
		settings[one.name] = one.value
	}
	c.Settings = settings
	return true, nil
}

// writeConcern is the default that the set should have; empty: whatever it is. An arbiter makes one necessary.
func (w want) writeConcern() string {
	if w.settings.DefaultWriteConcern != "" {
		return w.settings.DefaultWriteConcern
	}
	for _, m := range w.members {
		if m.arbiter {
			return "majority"
		}
	}
	return ""
}

// getWriteConcern reads the default; empty when nobody has set one, and for servers before 4.4, which have none.
func getWriteConcern(ctx context.Context, client *driver.Client) (string, error) {
	var answer struct {
		WriteConcern struct {
			W any `bson:"w"`
		} `bson:"defaultWriteConcern"`
		Source string `bson:"defaultWriteConcernSource"` // from 5.0: "global" or "implicit"
	}
	err := run(ctx, client, adminDatabase, bson.D{{Key: "getDefaultRWConcern", Value: 1}}, &answer)
	switch {
	case hasCode(err, codeCommandNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read the default write concern: %w", err)
	case answer.Source == "implicit" || answer.WriteConcern.W == nil:
		return "", nil
	}
	return fmt.Sprint(answer.WriteConcern.W), nil
}

func (s *session) setWriteConcern(ctx context.Context, client *driver.Client) error {
	var w any = s.want.writeConcern()
	if n, err := strconv.Atoi(s.want.writeConcern()); err == nil {
		w = n
	}
	err := run(ctx, client, adminDatabase, bson.D{
		{Key: "setDefaultRWConcern", Value: 1},
		{Key: "defaultWriteConcern", Value: bson.D{{Key: "w", Value: w}}},
		{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}},
	}, nil)
	if err != nil {
		return fmt.Errorf("set the default write concern: %w", err)
	}
	return nil
}
