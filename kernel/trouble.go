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
