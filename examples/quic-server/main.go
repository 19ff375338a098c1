// quic-server is HTTP/3 by github.com/quic-go/quic-go on a card, with a certificate that it makes for itself. In the folder examples:
//
//	go build -o bin/ ./quic-server && sudo bin/quic-server -i eth0 -listen :4433
//
// and then from another machine, with this one's address, where the kernel's UDP will do:
//
//	go build -o bin/ ./quic-client && bin/quic-client https://10.0.0.5:4433/bytes/104857600
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"log"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/quic-go/quic-go/http3"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`; '': the kernel's UDP")
	listen := flag.String("listen", ":4433", "`address` to serve")
	flag.Parse()
	if err := run(*card, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(card, listen string) error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	listenPacket := net.ListenPacket
	if card != "" {
		k, err := kit.Open(kit.Config{Interface: card})
		if err != nil {
			return err
		}
		defer k.Close()
		listenPacket = k.Net().ListenPacket // the one line that quic-go's users change
	}
	pc, err := listenPacket("udp4", listen)
	if err != nil {
		return err
	}
	server := &http3.Server{Handler: http.HandlerFunc(bytes), TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(stop, func() { _ = server.Close() })
	log.Printf("serving on %v of %s", pc.LocalAddr(), card)
	if err := server.Serve(pc); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bytes answers GET /bytes/N with N bytes, the same each time.
func bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Path[min(len("/bytes/"), len(r.URL.Path)):], 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "want /bytes/ and how many", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, rand.NewChaCha8([32]byte{}), n) // an error is a client that went away
}

// selfSigned makes a certificate that nobody vouches for.
func selfSigned() (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return c, err
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(24 * time.Hour)}
	text, err := x509.CreateCertificate(crand.Reader, about, about, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key}, err
}
