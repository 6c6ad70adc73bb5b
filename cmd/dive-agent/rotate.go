package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"dive-agent/config"
	"dive-agent/desired"
)

func newSecretsRotate(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "rotate INSTANCE NAME", Short: "Make a new value for a secret that the agent made, and bring it into use",
		Long: `Makes a new value for a secret that the agent made, and has the agent bring it into use: passwords of a MongoReplicaSet,
which the servers get from the agent before whatever uses them follows, and the key file that its members share. That one is
rotated in two rolls over the members, one at a time and the primary last: at first all get the new key beside the former one;
when every member was seen to know it, the former one is taken away. A certificate authority goes in three steps: trusted beside
the former one, then certificates by it, then the former one dropped. Until that is over neither is rotated again. How far it is:
dive-agent status INSTANCE, dive-agent secrets list INSTANCE. It goes on where it was after whatever stopped the agent.`,
		Example: "  dive-agent secrets rotate usa MONGO_KEYFILE",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Load(g.config)
			if err != nil {
				return err
			}
			instance, name := args[0], args[1]
			spec, err := mayRotate(g, c, instance, name)
			if err != nil {
				return err
			}
			store, err := openSecrets(c, instance)
			if err != nil {
				return err
			}
			if err := store.Rotate(cmd.Context(), spec); err != nil {
				return err
			}
			g.printf("%s of %s has a new value", name, instance)
			if spec.Keyfile {
				g.printf(": its servers get it beside the former one, then the former one is taken away")
			} else if spec.Certificate != nil {
				g.printf(": it is trusted beside the former one, then certificates are made by it, then the former one is dropped")
			}
			g.printf(".\n")
			agent, err := newClient(g)
			if err == nil {
				_, err = agent.order(cmd.Context(), instance, "sync", nil)
			}
			if err != nil {
				g.printf("The agent takes it up at its next start or look: %v\n", err)
				return nil
			}
			g.printf("The agent is at it. See: dive-agent status %s\n", instance)
			return nil
		},
	}
}

// mayRotate gives the secret as the revision in force declares it, when a new value of it reaches all that have to know it.
func mayRotate(g *globals, c *config.Config, instance, name string) (desired.SecretSpec, error) {
	none := desired.SecretSpec{}
	revision, fleet := inForce(g, c)
	if fleet == nil {
		return none, fmt.Errorf("this host has no revision of its fleet in force that says how %s of %s is made. See: dive-agent status", name, instance)
	}
	if err := declaredIn(fleet, revision, c.Host, instance, name, ""); err != nil {
		return none, err
	}
	inst := fleet.Instances[instance]
	spec := *inst.Secret(name)
	if !spec.Keyfile && !spec.Provide && spec.Source == nil && spec.Rotate == nil && spec.Certificate == nil && len(inst.Graph.Holders[name]) == 0 {
		return none, fmt.Errorf("no component of %s brings a new %s to what was set up with it. Change it there first, then give it with: dive-agent secrets set %[1]s %s --replace",
			instance, name, name)
	}
	return spec, nil
}
