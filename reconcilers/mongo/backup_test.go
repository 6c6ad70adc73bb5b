package mongo_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
)

func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	r := reconciler(t)
	s.settle(r)
	dive := s.admin("mongodb").Database("dive")
	var documents []any
	for i := range 3000 {
		documents = append(documents, bson.D{{Key: "_id", Value: i}, {Key: "text", Value: fmt.Sprintf("%04000d", i)}})
	}
	_, err := dive.Collection("many").InsertMany(t.Context(), documents)
	require.NoError(t, err)
	s.command("mongodb", bson.D{{Key: "ping", Value: 1}})
	require.NoError(t, dive.CreateCollection(t.Context(), "empty"))
	require.NoError(t, dive.CreateView(t.Context(), "some", "many", bson.A{bson.D{{Key: "$match", Value: bson.D{{Key: "_id", Value: bson.D{{Key: "$lt", Value: 10}}}}}}}))
	s.spec.Indexes = []mongo.Index{{Collection: "many", Keys: tree(t, "{text: 1}"), Unique: true}}
	s.settle(r)

	folder := filepath.Join(t.TempDir(), "backups")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	old := []string{"deu-database-20200101T000000Z.tar.zst", "deu-database-20200102T000000Z.tar.zst.age", "other.tar.zst"}
	for _, name := range append([]string{".deu-database-20200101T000000Z.tar.zst.writing-123"}, old...) {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), nil, 0o600))
	}
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte(identity.String()+"\n"), 0o600))
	s.spec.Backup = &mongo.Backup{
		Schedule: "@every 12h", Folder: desired.Literal(folder), Recipient: desired.Literal(identity.Recipient().String()), Keep: mongo.Keep{Count: 2},
	}
	require.Equal(t, []string{"run backup: of dive to " + folder}, s.addresses(r))
	o, plan, err := s.pass(r)
	require.NoError(t, err)
	require.Empty(t, plan.Changes, "the next one is due in 12 hours")
	told := o.Facts.Values["backup"].(map[string]any)
	require.NotContains(t, told, "failure")
	require.Positive(t, told["size"])
	next, err := time.Parse(time.RFC3339, told["next"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(12*time.Hour), next, time.Minute)
	names := files(t, folder)
	require.Equal(t, []string{old[1], told["file"].(string), old[2]}, names, "of three two are kept, and what is not ours")
	path := filepath.Join(folder, told["file"].(string))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	_, err = dive.Collection("many").DeleteMany(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$gte", Value: 5}}}})
	require.NoError(t, err)
	require.NoError(t, dive.Collection("some").Drop(t.Context()))
	_, err = dive.Collection("empty").InsertOne(t.Context(), bson.D{})
	require.NoError(t, err)
	_, err = dive.Collection("later").InsertOne(t.Context(), bson.D{})
	require.NoError(t, err)
	restorer := r.(reconcilers.Restorer)
	_, err = restorer.Overwrites(t.Context(), s.target, reconcilers.BackupFile{Path: path})
	require.ErrorContains(t, err, "is encrypted")
	backup := reconcilers.BackupFile{Path: path, Identity: key}
	list, err := restorer.Overwrites(t.Context(), s.target, backup)
	require.NoError(t, err)
	counts := map[string][2]int64{}
	for _, o := range list {
		counts[o.Database+"."+o.Collection] = [2]int64{o.Now, o.Backup}
	}
	require.Equal(t, map[string][2]int64{"dive.many": {5, 3000}, "dive.empty": {1, 0}, "dive.some": {0, 0}}, counts)

	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, content := range map[string][]byte{"cut": whole[:len(whole)-50], "flipped": append(append([]byte{}, whole[:len(whole)/2]...), append([]byte{whole[len(whole)/2] ^ 1}, whole[len(whole)/2+1:]...)...)} {
		bad := reconcilers.BackupFile{Path: filepath.Join(t.TempDir(), name), Identity: key}
		require.NoError(t, os.WriteFile(bad.Path, content, 0o600))
		require.ErrorContains(t, restorer.Restore(t.Context(), s.target, bad), "the backup is damaged", name)
	}
	count, err := dive.Collection("many").CountDocuments(t.Context(), bson.D{})
	require.NoError(t, err)
	require.EqualValues(t, 5, count, "a damaged file touches nothing")

	require.ErrorContains(t, restorer.Restore(t.Context(), s.target, reconcilers.BackupFile{Path: path, Identity: key, Databases: []string{"x"}}), "holds no database x")
	require.NoError(t, restorer.Restore(t.Context(), s.target, backup))
	for name, want := range map[string]int64{"many": 3000, "some": 10, "empty": 0, "later": 1} {
		count, err := dive.Collection(name).CountDocuments(t.Context(), bson.D{})
		require.NoError(t, err)
		require.Equal(t, want, count, name)
	}
	require.Empty(t, s.addresses(r), "the indexes are back too")
	left, err := dive.ListCollectionNames(t.Context(), bson.D{})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"many", "some", "empty", "later", "system.views"}, left)
}

func TestBackupThatFailsIsTold(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	r := reconciler(t)
	s.settle(r)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	s.spec.Backup = &mongo.Backup{Folder: desired.Literal(filepath.Join(file, "in"))}
	require.Len(t, s.addresses(r), 1, "the set is as ready as before")
	o, plan, err := s.pass(r)
	require.NoError(t, err)
	require.Empty(t, plan.Changes, "it is tried again later")
	require.Contains(t, o.Facts.Values["backup"].(map[string]any)["failure"], "not a directory")
}

// cutShort cancels what is applied once its first change has begun.
type cutShort struct {
	*progress
	cancel context.CancelFunc
}

func (c cutShort) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	defer c.cancel()
	return c.progress.Begin(ctx, changes...)
}

// TestBackupThatIsCutShortIsMadeAtTheNextLook: an agent that ends, or a revision that is merged meanwhile, is no failure of the backup.
func TestBackupThatIsCutShortIsMadeAtTheNextLook(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	r := reconciler(t)
	s.settle(r)
	folder := t.TempDir()
	s.spec.Backup = &mongo.Backup{Folder: desired.Literal(folder)}
	o, err := r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	plan, err := r.Plan(s.target, o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = r.Apply(ctx, s.target, plan, cutShort{&progress{t: t}, cancel})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, files(t, folder))
	require.Equal(t, []string{"run backup: of dive to " + folder}, s.addresses(r))
	require.Len(t, files(t, folder), 1)
}

func TestBackupFromASecondary(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb", "mongodb-2").withContent().run("mongodb", "mongodb-2")
	r := reconciler(t)
	s.settle(r)
	folder := t.TempDir()
	s.spec.Backup = &mongo.Backup{Folder: desired.Literal(folder)}
	before := s.command("mongodb-2", bson.D{{Key: "serverStatus", Value: 1}})["opcounters"].(bson.D)
	o := s.settle(r)
	require.Equal(t, "mongodb:27017", o.Outputs["primary"].Text())
	after := s.command("mongodb-2", bson.D{{Key: "serverStatus", Value: 1}})["opcounters"].(bson.D)
	queries := func(counters bson.D) any {
		for _, e := range counters {
			if e.Key == "query" {
				return e.Value
			}
		}
		return nil
	}
	require.Greater(t, queries(after), queries(before), "the secondary was read")

	dive := s.admin("mongodb").Database("dive")
	require.NoError(t, dive.Drop(t.Context()))
	path := filepath.Join(folder, files(t, folder)[0])
	require.NoError(t, r.(reconcilers.Restorer).Restore(t.Context(), s.target, reconcilers.BackupFile{Path: path, Databases: []string{"dive"}}))
	count, err := dive.Collection("coi_definitions").CountDocuments(t.Context(), bson.D{})
	require.NoError(t, err)
	require.EqualValues(t, 22, count)
	require.Empty(t, s.addresses(r))
}
