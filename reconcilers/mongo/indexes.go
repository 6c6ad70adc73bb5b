package mongo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// indexLimit bounds the build of one index. The server goes on with it when the limit passes; the next run finds it done.
const indexLimit = 10 * time.Minute

// Index is an index of a collection.
type Index struct {
	Database   string       `yaml:"database" doc:"Database. Default: the component's."`
	Collection string       `yaml:"collection" required:"true" doc:"Collection."`
	Keys       desired.Tree `yaml:"keys" required:"true" shape:"map of field to 1, -1, text, 2d, 2dsphere or hashed" doc:"The fields in their order, each with its direction or type."`
	Name       string       `yaml:"name" doc:"Name. Default: as the server makes it of the keys, or as it is called already."`
	Unique     bool         `yaml:"unique" doc:"No two documents have the same keys."`
	Sparse     bool         `yaml:"sparse" doc:"Documents without the fields are left out."`
	Partial    desired.Tree `yaml:"partialFilterExpression" shape:"map" doc:"Only documents that match are in it, as the server's createIndexes takes it."`
	Collation  desired.Tree `yaml:"collation" shape:"map" doc:"How texts are compared, as the server takes it: locale, strength and so on."`

	ExpireAfterSeconds *int `yaml:"expireAfterSeconds" doc:"Documents are removed so long after the date in the field. Changed in place."`

	Position desired.Position
}

// wantIndex is a declared index with everything evaluated.
type wantIndex struct {
	database, collection, name string
	keys                       bson.D
	unique, sparse, named      bool
	partial, collation         bson.D
	expire                     *int64
}

func (x wantIndex) target() string { return x.database + "." + x.collection + "." + x.name }

// haveIndex is an index as listIndexes tells it.
type haveIndex struct {
	Name      string        `bson:"name"`
	Keys      bson.D        `bson:"key"`
	Unique    bool          `bson:"unique"`
	Sparse    bool          `bson:"sparse"`
	Partial   bson.D        `bson:"partialFilterExpression"`
	Collation bson.D        `bson:"collation"`
	Weights   bson.D        `bson:"weights"`
	Expire    bson.RawValue `bson:"expireAfterSeconds"`
}

// indexGap is an index that is not there, or whose documents live another time.
type indexGap struct {
	index int
	have  string // its name in the server when it is there
	was   *int64
}

// resolve evaluates an index. Values that do not exist yet are noted.
func (x Index) resolve(database string, e *evaluator) wantIndex {
	w := wantIndex{
		database: x.Database, collection: x.Collection, name: x.Name, named: x.Name != "",
		keys: e.document(x.Keys), unique: x.Unique, sparse: x.Sparse, partial: e.document(x.Partial), collation: e.document(x.Collation),
	}
	if w.database == "" {
		w.database = database
	}
	if w.name == "" {
		w.name = indexName(w.keys)
	}
	if x.ExpireAfterSeconds != nil {
		seconds := int64(*x.ExpireAfterSeconds)
		w.expire = &seconds
	}
	return w
}

// indexName is the name that the server would make.
func indexName(keys bson.D) string {
	var parts []string
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%s_%v", k.Key, k.Value))
	}
	return strings.Join(parts, "_")
}

// document evaluates a map in the order of the manifest.
func (e *evaluator) document(t desired.Tree) bson.D {
	value, ok := e.value(t).(bson.D)
	if !ok {
		return nil
	}
	return value
}

func (e *evaluator) value(t desired.Tree) any {
	switch {
	case t.IsMap():
		fields := bson.D{}
		for _, f := range t.Fields() {
			fields = append(fields, bson.E{Key: f.Name, Value: e.value(f.Value)})
		}
		return fields
	case t.IsList():
		list := bson.A{}
		for _, item := range t.Items() {
			list = append(list, e.value(item))
		}
		return list
	case t.IsZero():
		return nil
	}
	value, err := t.Eval(e.scope)
	if err != nil {
		if e.err == nil {
			e.err = err
		}
		return nil
	}
	if !value.Known() {
		e.note(t.Expr())
	}
	return value.Go()
}

func (s *Spec) validateIndexes(c *desired.Check) {
	seen := map[string]bool{}
	for _, x := range s.Indexes {
		if x.Database == "" && s.Database == "" {
			c.Errorf(x.Position, "an index of %s needs a database, here or in the component", x.Collection)
		}
		if x.ExpireAfterSeconds != nil && (*x.ExpireAfterSeconds < 0 || len(x.Keys.Fields()) != 1) {
			c.Errorf(x.Position, "expireAfterSeconds is 0 or more, on an index with one key")
		}
		for _, t := range []desired.Tree{x.Partial, x.Collation} {
			if !t.IsZero() && !t.IsMap() {
				c.Errorf(t.Position(), "a map is needed here")
			}
		}
		if !x.Keys.IsMap() || len(x.Keys.Fields()) == 0 {
			c.Errorf(x.Position, "keys of an index of %s: a map of fields to 1, -1, text, 2d, 2dsphere or hashed", x.Collection)
			continue
		}
		for _, f := range x.Keys.Fields() {
			value, err := f.Value.Eval(c.Scope)
			if err == nil && value.Known() && !slices.Contains([]any{int64(1), int64(-1), "text", "2d", "2dsphere", "hashed"}, value.Go()) {
				c.Errorf(f.Position, "key %s of an index of %s: 1, -1, text, 2d, 2dsphere or hashed is possible", f.Name, x.Collection)
			}
		}
		var unknown string
		w := x.resolve(s.Database, &evaluator{scope: c.Scope, unknown: &unknown})
		if seen[w.target()] {
			c.Errorf(x.Position, "index %s stands twice", w.target())
		}
		seen[w.target()] = true
	}
}

// observeIndexes compares the declared indexes with the server's; one that nobody declares is let be.
func (s *session) observeIndexes(ctx context.Context, client *driver.Client) ([]indexGap, error) {
	var gaps []indexGap
	there := map[string][]haveIndex{}
	for i, x := range s.want.indexes {
		name := x.database + "." + x.collection
		have, asked := there[name]
		if !asked {
			var err error
			if have, err = listIndexes(ctx, client, x); err != nil {
				return nil, fmt.Errorf("read the indexes of %s: %w", name, err)
			}
			there[name] = have
		}
		gap, err := x.compare(have)
		if err != nil {
			return nil, err
		}
		if gap != nil {
			gap.index = i
			gaps = append(gaps, *gap)
		}
	}
	return gaps, nil
}

func listIndexes(ctx context.Context, client *driver.Client, x wantIndex) ([]haveIndex, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	found, err := client.Database(x.database).Collection(x.collection).Indexes().List(ctx)
	if hasCode(err, codeNamespaceNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []haveIndex
	return list, found.All(ctx, &list)
}

// compare finds the index by its name, or, where the manifest gives none, by its keys. Nil when nothing is to be done.
func (x wantIndex) compare(have []haveIndex) (*indexGap, error) {
	at := slices.IndexFunc(have, func(h haveIndex) bool { return h.Name == x.name })
	if at < 0 {
		at = slices.IndexFunc(have, func(h haveIndex) bool {
			return sameKeys(x.keys, h) && coveredBy(x.collation, h.Collation) && sameFields(x.partial, h.Partial)
		})
	}
	if at < 0 {
		return &indexGap{}, nil
	}
	h := have[at]
	same := sameKeys(x.keys, h) && x.unique == h.Unique && x.sparse == h.Sparse && sameFields(x.partial, h.Partial) && coveredBy(x.collation, h.Collation)
	expire := h.expire()
	if !same || x.named && h.Name != x.name || (x.expire == nil) != (expire == nil) {
		return nil, x.conflict(h.String())
	}
	if x.expire != nil && *x.expire != *expire {
		return &indexGap{have: h.Name, was: expire}, nil
	}
	return nil, nil
}

func (h haveIndex) expire() *int64 {
	if !h.Expire.IsNumber() {
		return nil
	}
	seconds, ok := h.Expire.AsInt64OK()
	if !ok {
		return nil
	}
	return &seconds
}

// conflict says what both definitions are. An index is never dropped here: who queries with it is not known.
func (x wantIndex) conflict(have string) error {
	return &reconcilers.BlockedError{
		Reason:  "OtherIndex",
		Message: fmt.Sprintf("%s.%s has an index %s, and the manifest declares %s", x.database, x.collection, have, x),
		Do:      "Declare the index as it is, or drop it by hand when nothing needs it: it is then made as declared",
	}
}

// sameKeys compares keys in their order; those of a text index, which the server keeps as weights, without it.
func sameKeys(want bson.D, h haveIndex) bool {
	var have []string
	for _, k := range h.Keys {
		switch k.Key {
		case "_fts":
			for _, w := range h.Weights {
				have = append(have, w.Key+"_text")
			}
		case "_ftsx":
		default:
			have = append(have, indexName(bson.D{{Key: k.Key, Value: k.Value}}))
		}
	}
	var keys []string
	for _, k := range want {
		keys = append(keys, indexName(bson.D{k}))
	}
	if len(h.Weights) > 0 {
		slices.Sort(have)
		slices.Sort(keys)
	}
	return slices.Equal(have, keys)
}

func sameFields(a, b bson.D) bool {
	one, err := bson.Marshal(a)
	other, otherErr := bson.Marshal(b)
	if a == nil || b == nil {
		return len(a) == len(b)
	}
	return err == nil && otherErr == nil && sameDocument(one, other)
}

// coveredBy says whether a collation has all that is wanted; the server adds what it takes for granted.
func coveredBy(want, have bson.D) bool {
	if len(want) == 0 {
		return len(have) == 0
	}
	var same bson.D
	for _, field := range have {
		if slices.ContainsFunc(want, func(e bson.E) bool { return e.Key == field.Key }) {
			same = append(same, field)
		}
	}
	return sameFields(want, same)
}

// command is the index as createIndexes takes it.
func (x wantIndex) command() bson.D {
	index := bson.D{{Key: "key", Value: x.keys}, {Key: "name", Value: x.name}}
	index = append(index, indexOptions(x.unique, x.sparse, x.partial, x.collation, x.expire)...)
	return index
}

func indexOptions(unique, sparse bool, partial, collation bson.D, expire *int64) (list bson.D) {
	if unique {
		list = append(list, bson.E{Key: "unique", Value: true})
	}
	if sparse {
		list = append(list, bson.E{Key: "sparse", Value: true})
	}
	if partial != nil {
		list = append(list, bson.E{Key: "partialFilterExpression", Value: partial})
	}
	if collation != nil {
		list = append(list, bson.E{Key: "collation", Value: collation})
	}
	if expire != nil {
		list = append(list, bson.E{Key: "expireAfterSeconds", Value: *expire})
	}
	return list
}

func (x wantIndex) String() string { return relaxed(x.command()) }

func (h haveIndex) String() string {
	keys := h.Keys
	if len(h.Weights) > 0 {
		keys = append(slices.Clone(keys), bson.E{Key: "weights", Value: h.Weights})
	}
	index := bson.D{{Key: "key", Value: keys}, {Key: "name", Value: h.Name}}
	return relaxed(append(index, indexOptions(h.Unique, h.Sparse, h.Partial, h.Collation, h.expire())...))
}

func relaxed(d bson.D) string {
	text, err := bson.MarshalExtJSON(d, false, false)
	if err != nil {
		return fmt.Sprint(d)
	}
	return string(text)
}

// putIndex makes the index, or changes how long its documents live.
func (s *session) putIndex(ctx context.Context, client *driver.Client, x wantIndex) error {
	have, err := listIndexes(ctx, client, x)
	if err != nil {
		return err
	}
	gap, err := x.compare(have)
	if err != nil || gap == nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if gap.have != "" {
		change := bson.D{{Key: "name", Value: gap.have}, {Key: "expireAfterSeconds", Value: *x.expire}}
		return run(ctx, client, x.database, bson.D{{Key: "collMod", Value: x.collection}, {Key: "index", Value: change}}, nil)
	}
	// A majority is enough: a member that is away must not hold up what the services wait for.
	err = runFor(ctx, indexLimit, client, x.database, bson.D{
		{Key: "createIndexes", Value: x.collection}, {Key: "indexes", Value: bson.A{x.command()}}, {Key: "commitQuorum", Value: "majority"},
	}, nil)
	switch {
	case hasCode(err, codeIndexOptionsConflict, codeIndexKeySpecsConflict):
		return x.conflict("that is in its way (" + err.Error() + ")")
	case hasCode(err, codeDuplicateKey):
		return &reconcilers.BlockedError{
			Reason: "NotUnique", Message: fmt.Sprintf("%s.%s has documents that are equal in the keys of index %s", x.database, x.collection, x.name),
			Do: "Remove all but one of them by hand, or declare the index without unique",
		}
	case hasCode(err, codeCannotCreateIndex, codeBadValue, codeInvalidOptions, codeFailedToParse, codeTypeMismatch):
		return &reconcilers.BlockedError{
			Reason: "IndexRefused", Message: fmt.Sprintf("the server does not take index %s of %s.%s", x.name, x.database, x.collection), Err: err,
			Do: "Correct it in the manifest",
		}
	}
	return err
}

func (p *planner) planIndex(gap indexGap) {
	x := p.want.indexes[gap.index]
	s := step{action: putIndex, index: gap.index}
	if gap.have != "" {
		p.add(s, reconcilers.Update, "index "+x.target(), fmt.Sprintf("documents expire after %d -> %d s", *gap.was, *x.expire))
		return
	}
	p.add(s, reconcilers.Create, "index "+x.target(), "on "+relaxed(x.keys))
}
