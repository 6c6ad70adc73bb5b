package verify

import (
	"context"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
)

// command runs a command of the manifest.
func (t *try) command(ctx context.Context, db *driver.Database, spec *Mongo, expect any) outcome {
	command, err := t.ordered(spec.Command)
	if err != nil {
		return failed(err)
	}
	var answer bson.M
	if err := db.RunCommand(ctx, command).Decode(&answer); err != nil {
		return failed(mongoError(err))
	}
	if expect == nil {
		return pass("ok")
	}
	if difference := differs("", plain(answer), expect); difference != "" {
		return fail("%s", difference)
	}
	return pass("as expected")
}

// count holds a number of documents against the expected one.
func (t *try) count(ctx context.Context, db *driver.Database, spec *Mongo, expect any) outcome {
	filter, err := t.ordered(spec.Filter)
	if err != nil {
		return failed(err)
	}
	count, err := db.Collection(spec.Count).CountDocuments(ctx, filter)
	if err != nil {
		return failed(mongoError(err))
	}
	want, err := number(expect)
	if err != nil {
		return fail("expect must be the number of documents, not %v", expect)
	}
	o := pass("%d documents", count)
	if float64(count) != want {
		o = fail("%d documents in %s.%s, expected %v", count, db.Name(), spec.Count, expect)
	}
	return o.count("documents", count)
}

// demand is one thing that every document must have.
type demand struct {
	words string
	holds bson.E
}

// every counts the documents that lack something, by what they lack.
func (t *try) every(ctx context.Context, db *driver.Database, spec *Every) outcome {
	filter, err := t.ordered(spec.Filter)
	if err != nil {
		return failed(err)
	}
	demands, err := t.demands(spec)
	if err != nil {
		return failed(err)
	}
	from := db.Collection(spec.Collection)
	all, err := from.CountDocuments(ctx, filter)
	if err != nil {
		return failed(mongoError(err))
	}
	lacking, err := from.CountDocuments(ctx, without(filter, demands...))
	if err != nil {
		return failed(mongoError(err))
	}
	evidence := func(o outcome) outcome { return o.count("documents", all).count("without", lacking) }
	switch {
	case all < int64(spec.AtLeast):
		return evidence(fail("%d documents in %s.%s, expected %d at least", all, db.Name(), spec.Collection, spec.AtLeast))
	case lacking == 0:
		return evidence(pass("all of %d documents", all))
	}
	var lacks []string
	for _, d := range demands {
		n, err := from.CountDocuments(ctx, without(filter, d))
		if err != nil {
			return failed(mongoError(err))
		}
		if n > 0 {
			lacks = append(lacks, fmt.Sprintf("%d without %s", n, d.words))
		}
	}
	return evidence(fail("%d of %d documents in %s.%s: %s", lacking, all, db.Name(), spec.Collection, strings.Join(lacks, ", ")))
}

// demands are what every document must have. The values that a manifest expects are told, those of documents never.
func (t *try) demands(spec *Every) (list []demand, err error) {
	is, err := t.ordered(spec.Is)
	if err != nil {
		return nil, err
	}
	for _, field := range is {
		list = append(list, demand{fmt.Sprintf("%s %v", field.Key, field.Value), bson.E{Key: field.Key, Value: bson.D{{Key: "$eq", Value: field.Value}}}})
	}
	empty := bson.A{nil, "", bson.A{}, bson.D{}} // null is what a field that is missing compares to
	for _, name := range spec.NonEmpty {
		list = append(list, demand{name, bson.E{Key: name, Value: bson.D{{Key: "$nin", Value: empty}}}})
	}
	return list, nil
}

// without is the filter for documents that lack at least one of the demands.
func without(filter bson.D, demands ...demand) bson.D {
	holds := bson.D{}
	for _, d := range demands {
		holds = append(holds, d.holds)
	}
	return bson.D{{Key: "$and", Value: bson.A{filter, bson.D{{Key: "$nor", Value: bson.A{holds}}}}}}
}

// changeStream opens a change stream on the database and closes it again. Only a replica set gives one.
func changeStream(ctx context.Context, db *driver.Database) outcome {
	stream, err := db.Watch(ctx, driver.Pipeline{}) // waits for the server's answer
	if err != nil {
		return failed(mongoError(err))
	}
	if err := stream.Close(ctx); err != nil {
		return failed(mongoError(err))
	}
	return pass("a change stream on %s opens", db.Name())
}

// member looks at the state of the server that is asked, and at the name of its set.
func member(ctx context.Context, client *driver.Client, spec *Mongo) outcome {
	var hello struct {
		Set       string   `bson:"setName"`
		Primary   bool     `bson:"isWritablePrimary"`
		Secondary bool     `bson:"secondary"`
		Hosts     []string `bson:"hosts"`
	}
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return failed(mongoError(err))
	}
	state := "neither PRIMARY nor SECONDARY"
	switch {
	case hello.Set == "":
		return fail("it is no member of a replica set, expected %s", spec.Member)
	case hello.Primary:
		state = "PRIMARY"
	case hello.Secondary:
		state = "SECONDARY"
	}
	o := pass("%s of %s", state, hello.Set)
	switch {
	case state != spec.Member:
		o = fail("it is %s of %s, expected %s", state, hello.Set, spec.Member)
	case spec.Set != "" && hello.Set != spec.Set:
		o = fail("its set is %s, expected %s", hello.Set, spec.Set)
	}
	return o.count("members", int64(len(hello.Hosts)))
}
