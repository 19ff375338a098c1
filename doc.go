// Package kit puts a Go program on a network card at AF_XDP speed while the
// kernel keeps everything else on that card.
package kit
