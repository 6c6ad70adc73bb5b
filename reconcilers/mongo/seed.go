package mongo

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// seedGap is how many documents of a seed are not in its collection.
type seedGap struct {
	index   int
	missing int
}

func (s *session) observeSeeds(ctx context.Context, client *driver.Client) ([]seedGap, error) {
	var gaps []seedGap
	for i, seed := range s.want.seeds {
		missing, err := missingDocuments(ctx, client, seed)
		if err != nil {
			return nil, fmt.Errorf("look for the documents of %s: %w", seed.name(), err)
		}
		gaps = append(gaps, seedGap{index: i, missing: len(missing)})
	}
	return gaps, nil
}

// missingDocuments asks for all keys at once.
func missingDocuments(ctx context.Context, client *driver.Client, seed wantSeed) ([]seedDocument, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	keys := make(bson.A, len(seed.documents))
	for i, d := range seed.documents {
		keys[i] = d.key
	}
	projection := bson.D{{Key: seed.key, Value: 1}}
	if seed.key != "_id" {
		projection = append(projection, bson.E{Key: "_id", Value: 0})
	}
	found, err := client.Database(seed.database).Collection(seed.collection).Find(ctx,
		bson.D{{Key: seed.key, Value: bson.D{{Key: "$in", Value: keys}}}}, options.Find().SetProjection(projection))
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close(ctx) }()
	there := map[string]bool{}
	for found.Next(ctx) {
		there[keyID(found.Current.Lookup(seed.key))] = true
	}
	if err := found.Err(); err != nil {
		return nil, err
	}
	var missing []seedDocument
	for _, d := range seed.documents {
		if !there[keyID(d.key)] {
			missing = append(missing, d)
		}
	}
	return missing, nil
}

// plant inserts what is missing in one command. A document that came meanwhile stays as it is.
func plant(ctx context.Context, client *driver.Client, seed wantSeed) error {
	missing, err := missingDocuments(ctx, client, seed)
	if err != nil || len(missing) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reconfigLimit)
	defer cancel()
	var inserts []driver.WriteModel
	for _, d := range missing {
		inserts = append(inserts, driver.NewUpdateOneModel().SetUpsert(true).
			SetFilter(bson.D{{Key: seed.key, Value: d.key}}).
			SetUpdate(bson.D{{Key: "$setOnInsert", Value: d.document}}))
	}
	_, err = client.Database(seed.database).Collection(seed.collection).BulkWrite(ctx, inserts, options.BulkWrite().SetOrdered(false))
	return err
}
