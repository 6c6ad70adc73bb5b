package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// resources is how many documents of the collection resources a backend provides.
const resources = 24

// provideResources writes what stands for the documents that the real backend protects: each with encrypted true and a key
// access object in ztdf.payload. It is written once under each id, and only where the instance's country is given.
func provideResources(ctx context.Context, env environment, db *mongo.Database) error {
	code := env.get("INSTANCE_CODE")
	if code == "" || env.role == "KAS" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var writes []mongo.WriteModel
	for i := range resources {
		id := fmt.Sprintf("doc-%s-%03d", code, i+1)
		once := bson.D{{Key: "$setOnInsert", Value: resource(id, code)}}
		writes = append(writes, mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: id}}).SetUpdate(once).SetUpsert(true))
	}
	if _, err := db.Collection("resources").BulkWrite(ctx, writes, options.BulkWrite().SetOrdered(false)); err != nil {
		return explainWrite(err)
	}
	return nil
}

// resource has the fields that say how a document is protected; its content is random.
func resource(id, code string) bson.D {
	content, key := make([]byte, 48), make([]byte, 32)
	rand.Read(content)
	rand.Read(key)
	return bson.D{
		{Key: "resourceId", Value: id},
		{Key: "encrypted", Value: true},
		{Key: "ztdf", Value: bson.D{
			{Key: "payload", Value: bson.D{
				{Key: "encryptionAlgorithm", Value: "AES-256-GCM"},
				{Key: "encryptedChunks", Value: bson.A{bson.D{{Key: "encryptedData", Value: base64.StdEncoding.EncodeToString(content)}}}},
				{Key: "keyAccessObjects", Value: bson.A{bson.D{
					{Key: "kasId", Value: "kas-" + code}, {Key: "wrappedKey", Value: base64.StdEncoding.EncodeToString(key)},
				}}},
			}},
		}},
	}
}
