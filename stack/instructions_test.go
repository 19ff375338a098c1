//go:build !race

package stack

import "testing"

// No case costs more instructions than testdata/instructions.txt says.
func TestInstructions(t *testing.T) { engine.Guard(t) }
