// quic-client asks for a URL by HTTP/3 and says what came. It does so over a card, or without -i over the kernel's UDP, and believes
// any certificate. In the folder examples:
//
//	go build -o bin/ ./quic-client && sudo bin/quic-client -i eth0 https://10.0.0.9:4433/bytes/104857600
//
// The server is another machine's, such as quic-server.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "", "network `interface`; none: the kernel's UDP")
	flag.Parse()
	if err := run(*card, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(card, url string) error {
	if url == "" {
		return errors.New("which URL? quic-client -i eth0 https://10.0.0.9:4433/bytes/1000")
	}
	listen := net.ListenPacket
	if card != "" {
		k, err := kit.Open(kit.Config{Interface: card})
		if err != nil {
			return err
		}
		defer k.Close()
		listen = k.Net().ListenPacket
	}
	pc, err := listen("udp4", ":0")
	if err != nil {
		return err
	}
	over := &quic.Transport{Conn: pc}
	defer over.Close()
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Dial: func(ctx context.Context, address string, t *tls.Config, c *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp4", address)
			if err != nil {
				return nil, err
			}
			return over.Dial(ctx, to, t, c)
		},
	}
	defer transport.Close()

	client := http.Client{Transport: transport}
	began := time.Now()
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Printf("%s %s, %d bytes in %v, %.0f Mbit/s, sha256 %x\n", r.Proto, r.Status, n, took.Round(time.Millisecond),
		float64(n)*8/took.Seconds()/1e6, sum.Sum(nil))
	return nil
}
