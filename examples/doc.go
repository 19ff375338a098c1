// Package examples tests the programs below it: each is built and started as its first comment says, in a network namespace of its
// own, and judged by clients of other makes on the other end of a veth pair.
//
// It is a module of its own, so that kit does not depend on what the examples use.
package examples
