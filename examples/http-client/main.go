// http-client asks for a URL over a card, once or many times on one connection, and says what came: the kernel's TCP has no part in it.
// In the folder examples:
//
//	go build -o bin/ ./http-client && sudo bin/http-client -i eth0 -n 100 http://10.0.0.9:8080/
//
// The server is another machine's, of any make: python3 -m http.server 8080 --protocol HTTP/1.1. With -h2 the client speaks
// HTTP/2 without TLS, as nghttpd --no-tls 8080 does.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`")
	n := flag.Int("n", 1, "how many `requests`")
	h2 := flag.Bool("h2", false, "HTTP/2 without TLS")
	flag.Parse()
	if err := run(*card, flag.Arg(0), *n, *h2); err != nil {
		log.Fatal(err)
	}
}

func run(card, url string, n int, h2 bool) error {
	if url == "" {
		return errors.New("which URL? http-client -i eth0 http://10.0.0.9:8080/")
	}
	k, err := kit.Open(kit.Config{Interface: card})
	if err != nil {
		return err
	}
	defer k.Close()
	var connections atomic.Int32
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		connections.Add(1)
		return k.Net().DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	if h2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	client := http.Client{Transport: transport}
	total, last, began := int64(0), "", time.Now()
	for range n {
		size, text, err := get(&client, url)
		if err != nil {
			return err
		}
		total, last = total+size, text
	}
	fmt.Printf("%d requests, %d connections, %d bytes in %v\n%s\n", n, connections.Load(), total, time.Since(began).Round(time.Millisecond), last)
	return nil
}

// get reads one answer to its end, and says how long it was and what.
func get(c *http.Client, url string) (size int64, text string, err error) {
	r, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	sum := sha256.New()
	if size, err = io.Copy(sum, r.Body); err != nil {
		return 0, "", err
	}
	return size, fmt.Sprintf("%s %s, sha256 %x", r.Proto, r.Status, sum.Sum(nil)), nil
}
