//go:build race

package stack

// raced: the race detector is on, which makes everything slower.
const raced = true
