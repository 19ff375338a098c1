// Package loader puts kit on a network card: it loads and attaches the XDP program, opens one AF_XDP socket on each queue
// and hands out a Link for each, without cgo.
package loader
