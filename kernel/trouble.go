package kernel

import (
	"fmt"
	"sync"
)

// troubles are what a Follower can't follow at the moment, an error for each thing that it is about.
type troubles struct {
	mu   sync.Mutex
	list [troubleKinds]error
}

type troubleKind uint8

const (
	troubleVRF troubleKind = iota
	troubleAddresses
	troubleRoutes
	troubleReading
	troubleChanges

	troubleKinds
)

// set notes a trouble; nil ends it.
func (t *troubles) set(about troubleKind, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list[about] = err
}

// Troubles says what the sink has not been told, or was refused by it, at this moment: a sentence each, with what to do. There
// are none when all is well. Any goroutine may call it.
func (f *Follower) Troubles() (list []error) {
	f.troubles.mu.Lock()
	defer f.troubles.mu.Unlock()
	for _, err := range f.troubles.list {
		if err != nil {
			list = append(list, err)
		}
	}
	return list
}

// Unfollowed says by what else the kernel routes than what the sink is told, a sentence each: policy rules, and routes for one
// type of service. Any goroutine may call it.
func (f *Follower) Unfollowed() (list []string) {
	if n := f.unfollowed.rules.Load(); n > 0 {
		list = append(list, fmt.Sprintf("%s (beyond the usual three: %d)", policyRouting, n))
	}
	if n := f.unfollowed.services.Load(); n > 0 {
		list = append(list, fmt.Sprintf("routes for one type of service alone are not followed: what kit sends takes the others, "+
			"whatever its TOS; see 'ip route' (such routes: %d)", n))
	}
	return list
}

// explain puts what it means in front of an error, nil where there is none.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func explainDeaf(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the kernel's changes can't be received, so its tables are read every second instead: %w; "+
		"restart kit if it stays so", err)
}
