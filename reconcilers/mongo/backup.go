package mongo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/robfig/cron/v3"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/atomicfile"
	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// Limits of backups.
const (
	backupLimit    = 2 * time.Hour
	backupAgain    = 15 * time.Minute // after one that failed
	backupBehind   = 10 * time.Second // how far a secondary may be behind to be read from
	defaultBackups = 7
)

// Backup says what is dumped when, and how long it is kept.
type Backup struct {
	Schedule  string       `yaml:"schedule" default:"0 3 * * *" doc:"When a backup is made: five fields as in cron, or @every 12h. Looked at when the instance is."`
	Folder    desired.Expr `yaml:"folder" required:"true" doc:"Folder on the host, an absolute path; it is made when it is missing. Best on another disk than the data."`
	Databases []string     `yaml:"databases" doc:"Databases. Default: the component's."`
	Keep      Keep         `yaml:"keep" doc:"How long backups are kept. Old ones are removed only after a new one is there; the newest never."`
	Recipient desired.Expr `yaml:"recipient" doc:"Public key (age1...) to which backups are encrypted; who restores has the identity. Default: not encrypted."`

	Position desired.Position
}

// Keep bounds how many backups there are.
type Keep struct {
	Count int              `yaml:"count" default:"7" doc:"How many are kept at most."`
	Age   desired.Duration `yaml:"age" doc:"How old one may become, such as 720h. Default: no limit."`
}

// wantBackup is a declared backup with everything evaluated.
type wantBackup struct {
	schedule, folder, recipient string
	databases                   []string
	count                       int
	age                         time.Duration
}

// backupRecord is what is remembered of backups.
type backupRecord struct {
	Taken   time.Time `json:"taken,omitzero"` // when the last good one began
	File    string    `json:"file,omitempty"`
	Size    int64     `json:"size,omitempty"`
	Tried   time.Time `json:"tried,omitzero"`
	Failure string    `json:"failure,omitempty"` // of the last try
}

func (b *Backup) resolve(database string, e *evaluator) *wantBackup {
	if b == nil {
		return nil
	}
	w := &wantBackup{
		schedule: b.Schedule, folder: e.text(b.Folder), recipient: e.text(b.Recipient),
		databases: b.Databases, count: b.Keep.Count, age: b.Keep.Age.Std(),
	}
	if w.schedule == "" {
		w.schedule = "0 3 * * *"
	}
	if w.count == 0 {
		w.count = defaultBackups
	}
	if len(w.databases) == 0 {
		w.databases = []string{database}
	}
	return w
}

func (s *Spec) validateBackup(c *desired.Check) {
	b := s.Backup
	if b == nil {
		return
	}
	var unknown string
	w := b.resolve(s.Database, &evaluator{scope: c.Scope, unknown: &unknown})
	if _, err := cron.ParseStandard(w.schedule); err != nil {
		c.Errorf(b.Position, "schedule %q of the backup: %v", w.schedule, err)
	}
	if w.folder != "" && !filepath.IsAbs(w.folder) {
		c.Errorf(b.Position, "folder %q of the backup is no absolute path", w.folder)
	}
	if w.recipient != "" {
		if _, err := age.ParseX25519Recipient(w.recipient); err != nil {
			c.Errorf(b.Position, "the recipient of the backup is no public key of age (age1...)")
		}
	}
	if w.count < 0 || w.age < 0 {
		c.Errorf(b.Position, "keep of the backup must not be negative")
	}
	for _, name := range w.databases {
		if name == "" || ownDatabase(name) {
			c.Errorf(b.Position, "database %q cannot be backed up: name those of the services", name)
		}
	}
}

// ownDatabase says whether a database is the server's own: what is in it belongs to one set and is never brought back.
func ownDatabase(name string) bool {
	return slices.Contains([]string{adminDatabase, "local", "config"}, name)
}

// backupDue says whether the schedule had a turn since the last backup; one that failed is tried again after a while.
func (s *session) backupDue() bool {
	b, last, now := s.want.backup, s.memory.Backup, s.r.deps.Clock.Now()
	if b == nil || last.Failure != "" && now.Sub(last.Tried) < backupAgain {
		return false
	}
	schedule, err := cron.ParseStandard(b.schedule)
	return err == nil && (last.Taken.IsZero() || !schedule.Next(last.Taken).After(now))
}

// backupFacts tells of backups in the status.
func (s *session) backupFacts(f *reconcilers.Facts, st status) {
	b, last := s.want.backup, s.memory.Backup
	if b == nil {
		return
	}
	told := map[string]any{"folder": b.folder}
	if m, ok := s.want.backedUp(st); ok && !m.local() {
		told["madeOn"] = m.on
	}
	if schedule, err := cron.ParseStandard(b.schedule); err == nil {
		from := last.Taken
		if from.IsZero() {
			from = s.r.deps.Clock.Now()
		}
		told["next"] = schedule.Next(from).UTC().Format(time.RFC3339)
	}
	if !last.Taken.IsZero() {
		told["last"], told["file"], told["size"] = last.Taken.UTC().Format(time.RFC3339), last.File, last.Size
	}
	if last.Failure != "" {
		told["failure"] = last.Failure
		f.Notes = append(f.Notes, "the last backup failed: "+last.Failure)
	}
	f.Values["backup"] = told
}

func (p *planner) planBackup(due bool) {
	if due {
		p.add(step{action: runBackup}, reconcilers.Run, "backup", fmt.Sprintf("of %s to %s", strings.Join(p.want.backup.databases, ", "), p.want.backup.folder))
	}
}

// backup makes one file and then removes old ones. What went wrong is remembered, for the status. One that was cut short, because
// the agent ends or another revision is merged, did not fail: it is made at the next look.
func (s *session) backup(ctx context.Context) error {
	if !s.backupDue() {
		return nil
	}
	began := s.r.deps.Clock.Now()
	file, size, err := s.makeBackup(ctx, began)
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		s.memory.Backup.Tried, s.memory.Backup.Failure = began, err.Error()
		return errors.Join(fmt.Errorf("back up to %s: %w", s.want.backup.folder, err), s.memory.save())
	}
	s.memory.Backup = backupRecord{Taken: began, Tried: began, File: file, Size: size}
	if err := s.memory.save(); err != nil {
		return err
	}
	return s.removeOldBackups(began)
}

func (s *session) makeBackup(ctx context.Context, began time.Time) (file string, size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, backupLimit)
	defer cancel()
	b := s.want.backup
	from, err := s.backupSource(ctx)
	if err != nil {
		return "", 0, err
	}
	client, err := s.logInRoot(ctx, from)
	if err != nil {
		return "", 0, err
	}
	version, err := getVersion(ctx, client)
	if err != nil {
		return "", 0, err
	}
	if err := os.MkdirAll(b.folder, 0o700); err != nil {
		return "", 0, err
	}
	file = s.backupPrefix() + began.UTC().Format(backupTime) + ".tar.zst"
	if b.recipient != "" {
		file += ".age"
	}
	head := contents{Set: s.want.set, Version: version, Taken: began.UTC(), From: from.host}
	size, err = atomicfile.Stream(filepath.Join(b.folder, file), func(w io.Writer) error {
		return writeArchive(w, b.recipient, head, func(a *archiveWriter) error {
			for _, name := range b.databases {
				if err := dumpDatabase(ctx, client.Database(name), a); err != nil {
					return fmt.Errorf("dump database %s from %s: %w", name, from.host, err)
				}
			}
			return nil
		})
	})
	return file, size, err
}

// backupSource is a secondary of this host that is not behind, or the primary of a set of one.
func (s *session) backupSource(ctx context.Context) (wantMember, error) {
	primary, err := s.primary(ctx)
	if err != nil || len(s.want.members) == 1 {
		return primary, err
	}
	client, err := s.logInRoot(ctx, primary)
	if err != nil {
		return primary, err
	}
	st, err := getStatus(ctx, client)
	if err != nil {
		return primary, err
	}
	m, ok := s.want.backedUp(st)
	switch {
	case !ok:
		return primary, fmt.Errorf("no secondary of %s has caught up; the primary is not loaded with a backup", s.want.set)
	case !m.local():
		return m, fmt.Errorf("it is made beside %s now", m.title())
	}
	return m, nil
}

// backedUp is the secondary that backups are read from: the first one that has caught up and that an agent runs. All
// agents of a set see the same one, so that one of them makes the backup.
func (w want) backedUp(st status) (wantMember, bool) {
	for _, m := range w.members {
		seen, there := st.member(m.host)
		if there && (m.local() || m.on != "") && seen.Health == 1 && seen.State == stateSecondary && m.delay == 0 &&
			newestOptime(st).Sub(seen.Optime) < backupBehind {
			return m, true
		}
	}
	return wantMember{}, false
}

// backupIsOurs says whether this agent makes the backups.
func (s *session) backupIsOurs(st status) bool {
	m, ok := s.want.backedUp(st)
	return !s.want.spread() || ok && m.local()
}

// dumpDatabase adds all collections and views of a database.
func dumpDatabase(ctx context.Context, database *driver.Database, a *archiveWriter) error {
	list, err := database.ListCollections(ctx, bson.D{})
	if err != nil {
		return err
	}
	var found []struct {
		Name    string   `bson:"name"`
		Type    string   `bson:"type"`
		Options bson.Raw `bson:"options"`
	}
	if err := list.All(ctx, &found); err != nil {
		return err
	}
	for _, c := range found {
		if strings.HasPrefix(c.Name, "system.") || strings.HasSuffix(c.Name, restoring) {
			continue
		}
		if c.Type != "collection" && c.Type != "view" {
			return fmt.Errorf("%s is a %s, which backups do not know", c.Name, c.Type)
		}
		d := dumpedCollection{Database: database.Name(), Name: c.Name, Type: c.Type}
		if d.Options, err = bson.MarshalExtJSON(c.Options, true, false); err != nil {
			return err
		}
		if err := dumpCollection(ctx, database.Collection(c.Name), d, a); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	return nil
}

func dumpCollection(ctx context.Context, collection *driver.Collection, d dumpedCollection, a *archiveWriter) error {
	if d.Type == "view" {
		return a.add(d, func() (bson.Raw, error) { return nil, nil })
	}
	indexes, err := collection.Indexes().List(ctx)
	if err != nil {
		return err
	}
	var list []bson.Raw
	if err := indexes.All(ctx, &list); err != nil {
		return err
	}
	for _, index := range list {
		text, err := bson.MarshalExtJSON(index, true, false)
		if err != nil {
			return err
		}
		d.Indexes = append(d.Indexes, json.RawMessage(text))
	}
	found, err := collection.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "$natural", Value: 1}}))
	if err != nil {
		return err
	}
	defer func() { _ = found.Close(context.WithoutCancel(ctx)) }()
	return a.add(d, func() (bson.Raw, error) {
		if found.Next(ctx) {
			return found.Current, nil
		}
		return nil, found.Err()
	})
}

const backupTime = "20060102T150405Z"

func (s *session) backupPrefix() string { return strings.ReplaceAll(s.component, "/", "-") + "-" }

// removeOldBackups removes what is too many or too old of this component's files, never the newest.
func (s *session) removeOldBackups(now time.Time) error {
	b := s.want.backup
	entries, err := os.ReadDir(b.folder)
	if err != nil {
		return err
	}
	ours := regexp.MustCompile("^" + regexp.QuoteMeta(s.backupPrefix()) + `(\d{8}T\d{6}Z)\.tar\.zst(\.age)?$`)
	cutOff := "." + s.backupPrefix() // begins what a killed agent left of a backup
	kept := 0
	for _, e := range slices.Backward(entries) { // sorted by name, so by time
		match := ours.FindStringSubmatch(e.Name())
		if strings.HasPrefix(e.Name(), cutOff) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(b.folder, e.Name())); err != nil {
				return fmt.Errorf("remove a backup that was cut off: %w", err)
			}
		}
		if match == nil || !e.Type().IsRegular() {
			continue
		}
		taken, err := time.Parse(backupTime, match[1])
		if err != nil {
			continue
		}
		if kept == 0 || kept < b.count && (b.age == 0 || now.Sub(taken) <= b.age) {
			kept++
			continue
		}
		if err := os.Remove(filepath.Join(b.folder, e.Name())); err != nil {
			return fmt.Errorf("remove an old backup: %w", err)
		}
	}
	return nil
}
