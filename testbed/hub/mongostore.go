package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

type mongoStore struct {
	spokes, tokens *mongo.Collection
	matrix         *mongo.Collection
	now            func() time.Time
}

// Matrix is the collection of links: a document for each country, with those that it trusts.
const Matrix = "federation_matrix"

// NewMongoStore keeps records in the collections federation_spokes and federation_tokens of a database, and makes
// their indexes.
func NewMongoStore(ctx context.Context, db *mongo.Database, now func() time.Time) (Store, error) {
	s := &mongoStore{spokes: db.Collection("federation_spokes"), tokens: db.Collection("federation_tokens"), matrix: db.Collection(Matrix), now: now}
	_, err := s.spokes.Indexes().CreateMany(ctx, []mongo.IndexModel{
		{Keys: bson.D{{Key: "spokeId", Value: 1}}, Options: options.Index().SetUnique(true)},
		{Keys: bson.D{{Key: "instanceCode", Value: 1}}, Options: options.Index().SetUnique(true).SetSparse(true)},
		{Keys: bson.D{{Key: "status", Value: 1}}},
	})
	if err != nil {
		return nil, fmt.Errorf("make the indexes of the spokes: %w", err)
	}
	_, err = s.tokens.Indexes().CreateMany(ctx, []mongo.IndexModel{
		{Keys: bson.D{{Key: "token", Value: 1}}, Options: options.Index().SetUnique(true)},
		{Keys: bson.D{{Key: "spokeId", Value: 1}}},
		{Keys: bson.D{{Key: "expiresAt", Value: 1}}, Options: options.Index().SetExpireAfterSeconds(0)},
	})
	if err != nil {
		return nil, fmt.Errorf("make the indexes of the tokens: %w", err)
	}
	return s, nil
}

func (s *mongoStore) Link(ctx context.Context, source, trusted string) error {
	return LinkIn(ctx, s.matrix, source, trusted)
}

// LinkIn notes in a collection of links that one country trusts another.
func LinkIn(ctx context.Context, matrix *mongo.Collection, source, trusted string) error {
	change := bson.D{
		{Key: "$addToSet", Value: bson.D{{Key: "trustedCountries", Value: trusted}}},
		{Key: "$set", Value: bson.D{{Key: "updatedAt", Value: time.Now()}}},
	}
	_, err := matrix.UpdateOne(ctx, bson.D{{Key: "sourceCountry", Value: source}}, change, options.UpdateOne().SetUpsert(true))
	return err
}

func (s *mongoStore) Spoke(ctx context.Context, id string) (*Record, error) {
	return findOne[Record](ctx, s.spokes, bson.D{{Key: "spokeId", Value: id}})
}

func (s *mongoStore) SpokeByCode(ctx context.Context, code string) (*Record, error) {
	return findOne[Record](ctx, s.spokes, bson.D{{Key: "instanceCode", Value: code}})
}

func (s *mongoStore) Spokes(ctx context.Context, status string) ([]*Record, error) {
	filter := bson.D{}
	if status != "" {
		filter = bson.D{{Key: "status", Value: status}}
	}
	return findAll[Record](ctx, s.spokes, filter, bson.D{{Key: "registeredAt", Value: -1}})
}

func (s *mongoStore) Save(ctx context.Context, record *Record) error {
	filter := bson.D{{Key: "spokeId", Value: record.SpokeID}}
	_, err := s.spokes.ReplaceOne(ctx, filter, record, options.Replace().SetUpsert(true))
	return err
}

func (s *mongoStore) Delete(ctx context.Context, id string) error {
	_, err := s.spokes.DeleteOne(ctx, bson.D{{Key: "spokeId", Value: id}})
	return err
}

func (s *mongoStore) Token(ctx context.Context, token string) (*Token, error) {
	live := bson.D{{Key: "$gt", Value: s.now()}}
	return findOne[Token](ctx, s.tokens, bson.D{{Key: "token", Value: token}, {Key: "expiresAt", Value: live}})
}

func (s *mongoStore) Tokens(ctx context.Context, spokeID string) ([]*Token, error) {
	return findAll[Token](ctx, s.tokens, bson.D{{Key: "spokeId", Value: spokeID}}, bson.D{{Key: "issuedAt", Value: 1}})
}

func (s *mongoStore) SaveToken(ctx context.Context, token *Token) error {
	_, err := s.tokens.InsertOne(ctx, token)
	return err
}

func (s *mongoStore) DeleteTokens(ctx context.Context, spokeID string) error {
	_, err := s.tokens.DeleteMany(ctx, bson.D{{Key: "spokeId", Value: spokeID}})
	return err
}

func findOne[T any](ctx context.Context, from *mongo.Collection, filter bson.D) (*T, error) {
	var found T
	err := from.FindOne(ctx, filter).Decode(&found)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &found, nil
}

func findAll[T any](ctx context.Context, from *mongo.Collection, filter, sort bson.D) ([]*T, error) {
	cursor, err := from.Find(ctx, filter, options.Find().SetSort(sort))
	if err != nil {
		return nil, err
	}
	found := []*T{}
	return found, cursor.All(ctx, &found)
}
