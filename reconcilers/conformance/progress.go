package conformance

import (
	"context"
	"fmt"
	"sync"

	"dive-agent/reconcilers"
)

// progress checks that an apply begins exactly the changes of its plan, and stops it where the test says.
type progress struct {
	driver     *driver
	stopBefore int // number of the change before which Begin refuses, counted over the driver's whole life; -1: never

	mu       sync.Mutex
	begun    int
	open     map[string]int // begun and not ended, by action and address
	expected map[string]int
	wrong    []string
}

func name(c reconcilers.Change) string { return string(c.Action) + " " + c.Address }

func (p *progress) expect(plan reconcilers.Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open, p.expected, p.wrong = map[string]int{}, map[string]int{}, nil
	for _, change := range plan.Changes {
		p.expected[name(change)]++
	}
}

// Begin is reconcilers.Progress.
func (p *progress) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	p.driver.hear(changes)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.stopBefore >= 0 && p.begun+len(changes) > p.stopBefore {
		return errStopped
	}
	p.begun += len(changes)
	for _, c := range changes {
		if p.expected == nil {
			break
		}
		if p.expected[name(c)] == 0 {
			p.wrong = append(p.wrong, "begun though it is not in the plan: "+name(c))
		}
		p.expected[name(c)]--
		p.open[name(c)]++
	}
	return nil
}

// End is reconcilers.Progress.
func (p *progress) End(c reconcilers.Change, err error) {
	p.driver.hear(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return
	}
	if p.open[name(c)] == 0 {
		p.wrong = append(p.wrong, "ended though it was not begun: "+name(c))
	}
	p.open[name(c)]--
}

// Say is reconcilers.Progress.
func (p *progress) Say(format string, args ...any) { p.driver.hear(fmt.Sprintf(format, args...)) }

// Started is reconcilers.Progress.
func (p *progress) Started() {}

func (p *progress) problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	problems := p.wrong
	for change, count := range p.open {
		if count > 0 {
			problems = append(problems, "begun and never ended: "+change)
		}
	}
	return problems
}

func (p *progress) missing() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []string
	for change, count := range p.expected {
		if count > 0 {
			missing = append(missing, change)
		}
	}
	return missing
}
