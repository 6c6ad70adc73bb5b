package secrets

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dive-agent/desired"
)

// Check is what one kind of source says of itself, for the look of a doctor.
type Check struct {
	Kind string
	Saw  string
	Do   string // the way out; empty: all is well
}

// Check opens the host's keys and signs in where it can, and reads no secret. What the host does not have is left out.
func (s *Sources) Check(ctx context.Context) (all []Check) {
	l := &looking{Sources: s, ctx: ctx, files: map[string]openedFile{}}
	defer l.close()
	add := func(kind, saw string, err error) {
		c := Check{Kind: kind, Saw: saw}
		var f *fault
		switch {
		case errors.As(err, &f):
			c.Saw, c.Do = f.Error(), f.do
		case err != nil:
			c.Saw = err.Error()
		}
		if err != nil && c.Do == "" {
			c.Do = "Look at secrets." + kind + " in agent.yaml"
		}
		all = append(all, c)
	}
	if len(s.AgeKeyFiles) > 0 || s.PGPKeyFile != "" {
		saw := ""
		keys, err := l.sopsKeys()
		if err == nil {
			saw = "opens what is encrypted to " + strings.Join(keys.Names(), ", ")
		}
		add(desired.SopsSource, saw, err)
	}
	if s.Vault.Address != "" {
		v, err := l.vaultLook()
		if err == nil {
			_, err = v.signIn()
		}
		add(desired.VaultSource, fmt.Sprintf("%s; the agent's credentials are there", s.Vault.Address), err)
	}
	if s.GCP.Use {
		g, err := l.gcpLook()
		if err == nil {
			_, err = g.signIn()
		}
		add(desired.GCPSource, "the agent's account is taken", err)
	}
	return all
}
