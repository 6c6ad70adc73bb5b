package keycloak

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The processes of an apply, each of which a kill may hit. The shim stands between the agent and Terraform.
var victims = []string{"agent", "terraform", "provider", "shim"}

// points kills one process of an apply after the other, each at another point of another apply, and holds the realm to what
// is declared after each.
type points struct {
	*world
	front  *front
	random *rand.Rand
	clean  string            // the picture of a realm without roles of its own
	title  string            // of the realm that is declared
	roles  []string          // that are declared
	ids    map[string]string // of what the state held when the last change was through
	state  *tfState          // then
	kills  int
	torn   int // states that a kill of Terraform left empty or cut off
}

const (
	pointsPerRealm = 5  // changes; then another realm begins
	rolesToChoose  = 60 // of which each change declares some
	slowly         = 30 * time.Second
)

// killedAtPoints kills as often as is said. DIVE_SEED repeats a run.
func killedAtPoints(t *testing.T, b *bed, kills int) {
	seed := uint64(1)
	if text := os.Getenv("DIVE_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Logf("DIVE_SEED=%d", seed)
	p := &points{front: newFront(t, b), random: rand.New(rand.NewPCG(seed, 30))}
	p.front.modify(late(100 * time.Millisecond))
	undisturbed := newWorld(t, b, "")
	undisturbed.drive()
	p.clean = strings.NewReplacer("title A realm\n", "", "roles reader\n", "", "roles writer\n", "").Replace(undisturbed.picture(t))
	for change := 0; p.kills < kills; change++ {
		require.Less(t, change, 3*kills, "applies are through before a kill comes")
		if change%pointsPerRealm == 0 {
			p.world, p.ids, p.state = newWorld(t, b, ""), nil, nil
		}
		p.change(victims[p.kills%len(victims)])
	}
	t.Logf("%d kills; %d of Terraform left a state that was empty or cut off", p.kills, p.torn)
}

// change declares other roles and another title, and kills a process while that is applied.
func (p *points) change(victim string) {
	t := p.t
	p.title = fmt.Sprintf("Title %d", p.random.IntN(1000))
	p.roles = nil
	for n := range rolesToChoose {
		if p.random.IntN(2) == 0 {
			p.roles = append(p.roles, fmt.Sprintf("role-%02d", n))
		}
	}
	spec := toolLine() + smallSpec + fmt.Sprintf("  title: %s\n  roles: [%s]\nparallelism: 5\nurl: %s\n", p.title, strings.Join(p.roles, ", "), p.front.URL)
	after := p.random.IntN(rolesToChoose) // messages that something begins or is through
	again := time.Duration(p.random.Int64N(int64(2 * time.Second)))
	twice := p.random.IntN(3) == 0

	heard := p.said.Len()
	a := p.start(spec)
	if !p.strike(a, victim, after) {
		a.through(p.world)
		t.Logf("the apply was through before message %d", after)
	} else {
		p.kills++
		left := p.left(victim)
		if victim == "agent" && twice { // the next one too, wherever it is then
			next := p.start(spec)
			select {
			case <-time.After(again):
			case err := <-next.ended:
				next.ended <- err
			}
			next.kill()
		}
		began := time.Now()
		if victim == "agent" {
			a = p.start(spec)
		}
		a.through(p.world)
		if took := time.Since(began); took > slowly {
			t.Logf("what took %.1f s:\n%s", took.Seconds(), p.said.Bytes()[heard:])
		}
		t.Logf("%d: %s killed at message %d, %s; through %.1f s later", p.kills, victim, after, left, time.Since(began).Seconds())
	}
	p.holds()
}

// strike kills one of the processes of an apply once it has told of so much; false when the apply was through before.
func (p *points) strike(a *agentProcess, victim string, after int) bool {
	output, limit := filepath.Join(p.target.Dir, "run", "apply.jsonl"), time.After(agentLimit)
	for {
		if text, err := os.ReadFile(output); err == nil && told(text) >= after {
			if victim == "agent" {
				return a.kill()
			}
			if p.killOne(victim) {
				return true
			}
		}
		select {
		case err := <-a.ended:
			a.ended <- err
			return false
		case <-limit:
			p.t.Fatalf("no apply came to message %d within %s:\n%s", after, agentLimit, p.said)
		case <-time.After(time.Millisecond):
		}
	}
}

func told(text []byte) int {
	return bytes.Count(text, []byte(`"type":"apply_start"`)) + bytes.Count(text, []byte(`"type":"apply_complete"`))
}

// killOne ends all processes of a kind that work for this world alone; false when there is none.
func (p *points) killOne(victim string) (killed bool) {
	dir, err := filepath.EvalSymlinks(filepath.Join(p.target.Dir, "module"))
	require.NoError(p.t, err)
	for _, one := range processesIn(dir) {
		if kindOf(one) == victim && syscall.Kill(one.pid, syscall.SIGKILL) == nil {
			killed = true
		}
	}
	return killed
}

func kindOf(one process) string {
	switch {
	case isProvider(one):
		return "provider"
	case strings.HasSuffix(one.executable, ".test"):
		return "shim"
	}
	return "terraform"
}

// left says how the state was after a kill: torn, or just being written by a Terraform that goes on.
func (p *points) left(victim string) string {
	state, err := readState(filepath.Join(p.target.Dir, "terraform.tfstate"))
	switch {
	case err == nil:
		return fmt.Sprintf("the state had %d resources", state.managed())
	case errors.Is(err, errNoState):
		return "there was no state yet"
	case victim == "terraform":
		p.torn++
	}
	return err.Error()
}

// holds checks what must be true once a change is through, whatever was killed meanwhile.
func (p *points) holds() {
	t := p.t
	t.Helper()
	p.nobodyIsLeft()
	p.quiet()
	want := []string{"title " + p.title}
	for _, role := range p.roles {
		want = append(want, "roles "+role)
	}
	want = append(want, strings.Split(p.clean, "\n")...)
	slices.Sort(want)
	require.Equal(t, strings.Join(want, "\n"), p.picture(t), "the realm is as declared: none is missing, none is left, none is twice")

	state, err := readState(filepath.Join(p.target.Dir, "terraform.tfstate"))
	require.NoError(t, err)
	require.Equal(t, len(p.roles)+4, state.managed())
	ids := p.realmIDs()
	require.Equal(t, ids, state.ids(), "the state has what the realm has")
	for address, id := range p.ids {
		if now, kept := ids[address]; kept {
			require.Equal(t, id, now, "%s was made anew", address)
		}
	}
	if p.state != nil {
		require.Equal(t, p.state.Lineage, state.Lineage, "the state began anew")
		require.GreaterOrEqual(t, state.Serial, p.state.Serial)
	}
	p.ids, p.state = ids, state

	var r record
	require.NoError(t, load(filepath.Join(p.target.Dir, recordName), &r))
	require.Equal(t, []any{true, "", state.Serial, []string(nil)}, []any{r.Verified, r.Begun, r.Serial, r.Stuck})
	for _, name := range []string{"run/apply.jsonl", "run/begun.json", "module/" + adoptFile, "module/errored.tfstate"} {
		require.NoFileExists(t, filepath.Join(p.target.Dir, name))
	}
}

// realmIDs gives the ids of what the module makes as the server has them, by address.
func (p *points) realmIDs() map[string]string {
	ids := map[string]string{"keycloak_realm.this": p.realm}
	declared := func(path, key, value, address string) {
		for _, one := range p.bed.list(p.t, "/"+p.realm+path) {
			if one[key] == value {
				require.NotContains(p.t, ids, address, "it is there twice")
				ids[address] = fmt.Sprint(one["id"])
			}
		}
	}
	declared("/clients", "clientId", "app", "keycloak_openid_client.app")
	declared("/users", "username", "someone", "keycloak_user.someone")
	declared("/clients/"+ids["keycloak_openid_client.app"]+"/protocol-mappers/models", "name", "roles", "keycloak_openid_user_realm_role_protocol_mapper.roles")
	for _, role := range p.roles {
		ids[fmt.Sprintf("keycloak_role.each[%q]", role)] = ""
	}
	for _, one := range p.bed.list(p.t, "/"+p.realm+"/roles?max=1000") {
		address := fmt.Sprintf("keycloak_role.each[%q]", one["name"])
		if _, mine := ids[address]; mine {
			ids[address] = fmt.Sprint(one["id"])
		}
	}
	return ids
}

// An apply whose agent, Terraform, provider or shim is killed at any point is finished by the next run.
func killedAtSixPoints(t *testing.T, b *bed) { killedAtPoints(t, b, 6) }
