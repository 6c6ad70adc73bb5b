package mongo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/reconcilers"
)

const (
	restoring    = ".restoring" // ends the name of a collection that is being filled
	restoreLimit = 2 * time.Hour
)

var _ reconcilers.Restorer = (*Reconciler)(nil)

// Overwrites reads the whole backup and says what a restore would overwrite. A damaged one is an error.
func (r *Reconciler) Overwrites(ctx context.Context, t reconcilers.Target, b reconcilers.BackupFile) ([]reconcilers.Overwrite, error) {
	var list []reconcilers.Overwrite
	return list, r.withBackup(ctx, t, b, func(ctx context.Context, client *driver.Client, c contents, chosen []int) error {
		for _, i := range chosen {
			d := c.Collections[i]
			there := int64(0)
			if d.Type == "collection" {
				var err error
				if there, err = client.Database(d.Database).Collection(d.Name).EstimatedDocumentCount(ctx); err != nil {
					return fmt.Errorf("count the documents of %s: %w", d.namespace(), err)
				}
			}
			list = append(list, reconcilers.Overwrite{Database: d.Database, Collection: d.Name, Type: d.Type, Now: there, Backup: d.Documents, Taken: c.Taken})
		}
		return nil
	})
}

// Restore fills new collections beside those that are there, and takes their places only when all are filled: until then,
// and when it fails, nothing that was there is touched. What the backup does not hold stays.
func (r *Reconciler) Restore(ctx context.Context, t reconcilers.Target, b reconcilers.BackupFile) error {
	return r.withBackup(ctx, t, b, func(ctx context.Context, client *driver.Client, c contents, chosen []int) error {
		return restoreAll(ctx, client, c, chosen, b)
	})
}

// withBackup checks the whole backup, then works with the primary.
func (r *Reconciler) withBackup(ctx context.Context, t reconcilers.Target, b reconcilers.BackupFile, do func(context.Context, *driver.Client, contents, []int) error) error {
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	c, err := readArchive(b.Path, b.Identity, nil)
	if err != nil {
		return fmt.Errorf("read %s: %w", b.Path, err)
	}
	var chosen []int
	for i, d := range c.Collections {
		if ownDatabase(d.Database) {
			return fmt.Errorf("%s is the server's own and is never restored", d.namespace())
		}
		if len(b.Databases) == 0 || slices.Contains(b.Databases, d.Database) {
			chosen = append(chosen, i)
		}
	}
	for _, name := range b.Databases {
		if !slices.ContainsFunc(c.Collections, func(d dumpedCollection) bool { return d.Database == name }) {
			return fmt.Errorf("the backup %s holds no database %s", b.Path, name)
		}
	}
	s, err := r.open(t)
	if err != nil {
		return err
	}
	if s.want.unknown != "" {
		return &reconcilers.WaitError{For: s.want.unknown}
	}
	from := s.want.set
	if b.From != "" {
		from = b.From
	}
	if c.Set != from {
		return fmt.Errorf("%s is a backup of replica set %s, not of %s: name that set too (--from %s) if its data is what %s should hold",
			b.Path, c.Set, from, c.Set, s.want.set)
	}
	primary, err := s.primary(ctx)
	if err != nil {
		return err
	}
	client, err := s.logInRoot(ctx, primary)
	if err != nil {
		return fmt.Errorf("log in to %s: %w", primary.host, err)
	}
	return do(ctx, client, c, chosen)
}

func restoreAll(ctx context.Context, client *driver.Client, c contents, chosen []int, b reconcilers.BackupFile) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, dropFilled(context.WithoutCancel(ctx), client, c, chosen))
		}
	}()
	if err := dropFilled(ctx, client, c, chosen); err != nil { // of a restore that was cut off
		return err
	}
	for _, i := range chosen {
		if d := c.Collections[i]; d.Type == "collection" {
			if err := create(ctx, client, d, d.Name+restoring); err != nil {
				return fmt.Errorf("make %s anew: %w", d.namespace(), err)
			}
		}
	}
	again, err := readArchive(b.Path, b.Identity, func(number int, documents []bson.Raw) error {
		if !slices.Contains(chosen, number) {
			return nil
		}
		if number >= len(c.Collections) {
			return damaged("it changed while it was read")
		}
		d := c.Collections[number]
		_, err := client.Database(d.Database).Collection(d.Name+restoring).InsertMany(ctx, documents,
			options.InsertMany().SetOrdered(false).SetBypassDocumentValidation(true))
		if err != nil {
			return fmt.Errorf("fill %s: %w", d.namespace(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !again.Taken.Equal(c.Taken) || len(again.Collections) != len(c.Collections) {
		return damaged("it changed while it was read")
	}
	return swap(ctx, client, c, chosen)
}

// swap gives the filled collections their names. Each takes its place at once; a view is made anew.
func swap(ctx context.Context, client *driver.Client, c contents, chosen []int) error {
	for _, i := range chosen {
		d := c.Collections[i]
		if d.Type == "view" {
			if err := client.Database(d.Database).Collection(d.Name).Drop(ctx); err != nil {
				return err
			}
			if err := create(ctx, client, d, d.Name); err != nil {
				return fmt.Errorf("make the view %s: %w", d.namespace(), err)
			}
			continue
		}
		err := runFor(ctx, reconfigLimit, client, adminDatabase, bson.D{
			{Key: "renameCollection", Value: d.namespace() + restoring}, {Key: "to", Value: d.namespace()}, {Key: "dropTarget", Value: true},
		}, nil)
		if err != nil {
			return fmt.Errorf("put %s in its place (those before it are restored): %w", d.namespace(), err)
		}
	}
	return nil
}

func dropFilled(ctx context.Context, client *driver.Client, c contents, chosen []int) error {
	for _, i := range chosen {
		d := c.Collections[i]
		if err := client.Database(d.Database).Collection(d.Name + restoring).Drop(ctx); err != nil {
			return fmt.Errorf("remove %s%s: %w", d.namespace(), restoring, err)
		}
	}
	return nil
}

// create makes a collection with the options and the indexes of the backup.
func create(ctx context.Context, client *driver.Client, d dumpedCollection, name string) error {
	var given bson.D
	if err := bson.UnmarshalExtJSON(d.Options, true, &given); err != nil {
		return damaged("options: %w", err)
	}
	if err := runFor(ctx, reconfigLimit, client, d.Database, append(bson.D{{Key: "create", Value: name}}, given...), nil); err != nil {
		return err
	}
	indexes, err := indexesOf(d.Indexes)
	if err != nil || len(indexes) == 0 {
		return err
	}
	return runFor(ctx, reconfigLimit, client, d.Database, bson.D{{Key: "createIndexes", Value: name}, {Key: "indexes", Value: indexes}}, nil)
}

// indexesOf are the indexes but that of _id, which each collection has.
func indexesOf(list []json.RawMessage) (indexes bson.A, err error) {
	for _, text := range list {
		var index bson.D
		if err := bson.UnmarshalExtJSON(text, true, &index); err != nil {
			return nil, damaged("an index: %w", err)
		}
		index = slices.DeleteFunc(index, func(e bson.E) bool { return e.Key == "ns" })
		if !slices.Contains(index, bson.E{Key: "name", Value: "_id_"}) {
			indexes = append(indexes, index)
		}
	}
	return indexes, nil
}
