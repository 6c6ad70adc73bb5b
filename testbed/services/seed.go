package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// runSeed writes the documents of SEED_FILE and ends.
func runSeed(ctx context.Context, env environment, log *slog.Logger) error {
	if env.get("SEED_FILE") == "" {
		return errors.New("config: SEED_FILE is missing")
	}
	db, err := database(env)
	if err != nil {
		return err
	}
	defer disconnect(ctx, db)
	return seed(ctx, env, db, log)
}

// seed writes the documents of SEED_FILE, when there is one: Extended JSON, an object with a list of documents for each
// collection. Each document has an _id and replaces the one with the same _id, so that seeding twice changes nothing.
func seed(ctx context.Context, env environment, db *mongo.Database, log *slog.Logger) error {
	file := env.get("SEED_FILE")
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("config: SEED_FILE: %w", err)
	}
	var collections map[string][]json.RawMessage
	if err := json.Unmarshal(data, &collections); err != nil {
		return fmt.Errorf("read the seed %s: %w", file, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for name, documents := range collections {
		for i, text := range documents {
			var document bson.D
			if err := bson.UnmarshalExtJSON(text, false, &document); err != nil {
				return fmt.Errorf("read the seed %s: %s[%d]: %w", file, name, i, err)
			}
			if err := seedOne(ctx, db.Collection(name), document); err != nil {
				return fmt.Errorf("seed %s[%d] of %s: %w", name, i, file, err)
			}
		}
		log.Info("seeded", "collection", name, "documents", len(documents))
	}
	return nil
}

func seedOne(ctx context.Context, into *mongo.Collection, document bson.D) error {
	for _, field := range document {
		if field.Key == "_id" {
			_, err := into.ReplaceOne(ctx, bson.D{field}, document, options.Replace().SetUpsert(true))
			if err != nil {
				return explainWrite(err)
			}
			return nil
		}
	}
	return errors.New("the document has no _id")
}
