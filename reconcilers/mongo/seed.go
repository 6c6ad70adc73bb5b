package mongo

import (
	"context"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/reconcilers"
)

// seedSlice is how many documents are asked for, or written, at once.
const seedSlice = 1000

// seedGap is how many documents of a seed are not in its collection, and how many are other ones than the file's.
type seedGap struct {
	index     int
	missing   int
	differing int
}

func (s *session) observeSeeds(ctx context.Context, client *driver.Client) ([]seedGap, error) {
	var gaps []seedGap
	for i, seed := range s.want.seeds {
		missing, differing, err := seedDifferences(ctx, client, seed)
		if err != nil {
			return nil, fmt.Errorf("look for the documents of %s: %w", seed.name(), err)
		}
		gaps = append(gaps, seedGap{index: i, missing: len(missing), differing: len(differing)})
	}
	return gaps, nil
}

// seedDifferences gives the documents that are not there and, of a seed that updates, those that are there otherwise.
func seedDifferences(ctx context.Context, client *driver.Client, seed wantSeed) (missing, differing []seedDocument, err error) {
	for slice := range slices.Chunk(seed.documents, seedSlice) {
		there, err := seedThere(ctx, client, seed, slice)
		if err != nil {
			return nil, nil, err
		}
		for _, d := range slice {
			have := there[valueID(d.key)]
			switch {
			case len(have) == 0:
				missing = append(missing, d)
			case !seed.update:
			case len(have) > 1:
				return nil, nil, &reconcilers.BlockedError{
					Reason:  "AmbiguousSeed",
					Message: fmt.Sprintf("%s has %d documents with the %s of %s:%d, so that none of them can be told to be meant", seed.name(), len(have), seed.key, seed.file, d.line),
					Do:      "Remove all but one of them by hand, and declare a unique index on " + seed.key,
				}
			case !sameDocument(d.document, have[0], seed.kept()...):
				differing = append(differing, d)
			}
		}
	}
	return missing, differing, nil
}

// seedThere asks for all keys at once. It gives the documents by key: whole ones when they are to be compared.
func seedThere(ctx context.Context, client *driver.Client, seed wantSeed, slice []seedDocument) (map[string][]bson.Raw, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	keys := make(bson.A, len(slice))
	for i, d := range slice {
		keys[i] = d.key
	}
	find := options.Find()
	if !seed.update {
		projection := bson.D{{Key: seed.key, Value: 1}}
		if seed.key != idField {
			projection = append(projection, bson.E{Key: idField, Value: 0})
		}
		find.SetProjection(projection)
	}
	found, err := client.Database(seed.database).Collection(seed.collection).Find(ctx,
		bson.D{{Key: seed.key, Value: bson.D{{Key: "$in", Value: keys}}}}, find)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close(ctx) }()
	there := map[string][]bson.Raw{}
	for found.Next(ctx) {
		id := valueID(found.Current.Lookup(seed.key))
		there[id] = append(there[id], slices.Clone(found.Current))
	}
	return there, found.Err()
}

// plant inserts what is missing and replaces what differs, all in one bulk. A document that came meanwhile stays as it is.
func plant(ctx context.Context, client *driver.Client, seed wantSeed) error {
	missing, differing, err := seedDifferences(ctx, client, seed)
	if err != nil || len(missing)+len(differing) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reconfigLimit)
	defer cancel()
	var writes []driver.WriteModel
	for _, d := range missing {
		writes = append(writes, driver.NewUpdateOneModel().SetUpsert(true).
			SetFilter(bson.D{{Key: seed.key, Value: d.key}}).
			SetUpdate(bson.D{{Key: "$setOnInsert", Value: d.document}}))
	}
	for _, d := range differing {
		replacement, err := without(d.document, seed.kept())
		if err != nil {
			return err
		}
		writes = append(writes, driver.NewReplaceOneModel().SetFilter(bson.D{{Key: seed.key, Value: d.key}}).SetReplacement(replacement))
	}
	_, err = client.Database(seed.database).Collection(seed.collection).BulkWrite(ctx, writes, options.BulkWrite().SetOrdered(false))
	return err
}

// kept names the fields that an update leaves as they are: the server changes no _id of a document that is there.
func (s wantSeed) kept() []string {
	if s.key == idField {
		return nil
	}
	return []string{idField}
}

func without(document bson.Raw, names []string) (bson.D, error) {
	var fields bson.D
	if err := bson.Unmarshal(document, &fields); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(fields, func(e bson.E) bool { return slices.Contains(names, e.Key) }), nil
}

func (p *planner) planSeed(gap seedGap) {
	s := p.want.seeds[gap.index]
	total := len(s.documents)
	kind := reconcilers.Create
	var reason string
	switch {
	case gap.missing+gap.differing == 0:
		return
	case gap.missing == total:
		reason = fmt.Sprintf("seed %d documents into %s", total, s.collection)
	case gap.differing == 0:
		reason = fmt.Sprintf("seed %d of %d documents into %s, the others are there", gap.missing, total, s.collection)
	case gap.missing == 0:
		kind, reason = reconcilers.Update, fmt.Sprintf("replace %d of %d documents that differ from %s", gap.differing, total, s.file)
	default:
		reason = fmt.Sprintf("seed %d of %d documents into %s, replace %d that differ from %s", gap.missing, total, s.collection, gap.differing, s.file)
	}
	p.add(step{action: seedCollection, index: gap.index}, kind, "documents "+s.name(), reason)
}
