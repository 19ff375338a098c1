//go:build race

package socketapi

// slowdown is by how much a long test is made shorter where it takes that much longer.
const slowdown = 20
