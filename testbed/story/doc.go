// Package story tells the agent's whole story on one machine, with real engines: a hub comes up, a merged file brings up
// spoke DEU, people of both sides sign in at the other one, a removed container is healed, a bad revision is put back, an agent is killed in the middle, Git is taken
// away, DEU leaves. The demo shows it; tests walk parts of it more closely.
package story

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Options say where the story takes place.
type Options struct {
	Agent string // the agent's program
	Dir   string // folder of the world; what an earlier story left there is removed
	Keep  bool   // leave everything running at the end
	// Pictures is the folder for pictures of what people see in their browser; empty: none are made.
	Pictures string
}

// DefaultDir is the demo's folder.
func DefaultDir() string { return filepath.Join(os.TempDir(), "dive-agent-demo") }

// Tell tells the story and prints it. The error names the chapter that failed, or the promises that were not kept.
func Tell(ctx context.Context, o Options) error {
	w := newWorld(o)
	err := w.tell(ctx)
	if o.Keep {
		w.howToLookAround()
		return err
	}
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer done()
	return errors.Join(err, w.remove(ending))
}

// Remove removes what a story left in its folder and its engine, and nothing else.
func Remove(ctx context.Context, dir string) error { return newWorld(Options{Dir: dir}).remove(ctx) }

func newWorld(o Options) *world {
	return &world{dir: o.Dir, agentPath: o.Agent, pictures: o.Pictures}
}
