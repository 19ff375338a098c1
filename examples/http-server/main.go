// http-server is net/http on a card: HTTP/1.1, and HTTP/2 without TLS, on a port that it takes from the kernel, which keeps the rest.
// In the folder examples:
//
//	go build -o bin/ ./http-server && sudo bin/http-server -i eth0 -listen :8080
//
// and then from another machine, with this one's address:
//
//	curl http://10.0.0.5:8080/
//	curl -o /dev/null --http2-prior-knowledge http://10.0.0.5:8080/bytes/1073741824
//	wrk -c 100 http://10.0.0.5:8080/
//	h2load -n 10000 -c 10 http://10.0.0.5:8080/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`; '': the kernel's TCP")
	listen := flag.String("listen", ":8080", "`address` to serve")
	flag.Parse()
	if err := run(*card, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(card, listen string) error {
	listenTo := net.Listen
	if card != "" {
		k, err := kit.Open(kit.Config{Interface: card})
		if err != nil {
			return err
		}
		defer k.Close()
		listenTo = k.Net().Listen // the one line that net/http's users change
	}
	l, err := listenTo("tcp", listen)
	if err != nil {
		return err
	}
	var versions http.Protocols
	versions.SetHTTP1(true)
	versions.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler(), Protocols: &versions}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	drained := make(chan error, 1)
	go func() {
		<-stop.Done()
		patience, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		drained <- server.Shutdown(patience)
	}()
	log.Printf("serving on %v of %s", l.Addr(), card)
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello over %s\n", r.Proto)
	})
	// GET /bytes/N gives N bytes, the same each time.
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "want /bytes/ and how many", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", r.PathValue("n"))
		_, _ = io.CopyN(w, rand.NewChaCha8([32]byte{}), n) // an error is a client that went away
	})
	return mux
}
