//go:build !race

package socketapi

const slowdown = 1
