package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// notPrimaryCodes are the server's answers to a write on a member that is no writable primary: NotWritablePrimary,
// PrimarySteppedDown, InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary.
var notPrimaryCodes = []int{10107, 189, 11602, 13435, 13436}

// database connects to MONGODB_URL. It does not wait for a server.
func database(env environment) (*mongo.Database, error) {
	uri := env.get("MONGODB_URL")
	if uri == "" {
		return nil, errors.New("config: MONGODB_URL is missing")
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(5 * time.Second).
		SetWriteConcern(writeconcern.Majority()))
	if err != nil {
		return nil, errors.New("config: MONGODB_URL is no MongoDB connection string") // err may hold the password
	}
	return client.Database(env.or("MONGODB_DATABASE", "dive-v3")), nil
}

// disconnect ends the connections; nothing is left to do when that fails.
func disconnect(ctx context.Context, db *mongo.Database) {
	_ = db.Client().Disconnect(context.WithoutCancel(ctx))
}

// writeStart notes the start of the service in the database. That only a primary takes.
func writeStart(ctx context.Context, env environment, db *mongo.Database) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	var hello struct {
		Primary bool `bson:"isWritablePrimary"`
	}
	if err := db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return explainWrite(err)
	}
	if !hello.Primary { // the driver would only try again until the limit
		return errors.New("cannot write to MongoDB: not primary: the server that answers is no writable primary")
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	start := bson.D{
		{Key: "host", Value: host},
		{Key: "role", Value: env.role},
		{Key: "spokeId", Value: env.get("SPOKE_ID")},
		{Key: "version", Value: env.or("VERSION", "1.0.0")},
		{Key: "startedAt", Value: time.Now()},
	}
	if _, err := db.Collection("service_starts").InsertOne(ctx, start); err != nil {
		return explainWrite(err)
	}
	return nil
}

// explainWrite says "not primary" when that is what it is, as the drivers of the real services do.
func explainWrite(err error) error {
	var server mongo.ServerError
	if errors.As(err, &server) {
		for _, code := range notPrimaryCodes {
			if server.HasErrorCode(code) {
				return fmt.Errorf("cannot write to MongoDB: not primary (code %d): %w", code, err)
			}
		}
		return fmt.Errorf("cannot write to MongoDB: %w", err)
	}
	if mongo.IsTimeout(err) {
		return fmt.Errorf("cannot write to MongoDB: not primary: no writable member answered: %w", err)
	}
	return fmt.Errorf("cannot write to MongoDB: %w", err)
}

// mongoCheck writes a beat of the service, so that it fails when the primary is lost.
func mongoCheck(env environment, db *mongo.Database, log *slog.Logger) check {
	return check{name: "mongodb", run: func(ctx context.Context) (map[string]any, error) {
		filter := bson.D{{Key: "_id", Value: env.role}}
		beat := bson.D{{Key: "$set", Value: bson.D{{Key: "at", Value: time.Now()}}}}
		if _, err := db.Collection("service_beats").UpdateOne(ctx, filter, beat, options.UpdateOne().SetUpsert(true)); err != nil {
			err = explainWrite(err)
			log.Error(err.Error())
			return nil, err
		}
		return nil, nil
	}}
}
