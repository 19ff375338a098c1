package daemon

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// The service http: what is needed to try a path with curl or a load generator.
//
//	GET  /                   who asked whom, as text
//	GET  /bytes/N?seed=S     N bytes that follow from the seed
//	GET  /sha256/N?seed=S    their SHA-256, in hexadecimal
//	POST /sha256             that of the request's body

// maxBytes is the most that /bytes gives: 1 TiB.
const maxBytes = 1 << 40

func newWebServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		local := r.Context().Value(http.LocalAddrContextKey)
		fmt.Fprintf(w, "kitd at %v, asked by %s\n", local, r.RemoteAddr)
	})
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		if n, seed, ok := bytesAsked(w, r); ok {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
			_, _ = io.Copy(w, seeded(n, seed)) // the asker may have gone
		}
	})
	mux.HandleFunc("GET /sha256/{n}", func(w http.ResponseWriter, r *http.Request) {
		if n, seed, ok := bytesAsked(w, r); ok {
			writeSum(w, seeded(n, seed))
		}
	})
	mux.HandleFunc("POST /sha256", func(w http.ResponseWriter, r *http.Request) { writeSum(w, r.Body) })
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // what clients do wrong is theirs
	}
}

// bytesAsked reads N and seed, or answers that they are wrong.
func bytesAsked(w http.ResponseWriter, r *http.Request) (n int64, seed uint64, ok bool) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err == nil && (n < 0 || n > maxBytes) {
		err = errors.New("it is not from 0 to " + strconv.Itoa(maxBytes))
	}
	if text := r.URL.Query().Get("seed"); err == nil && text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
	}
	if err != nil {
		http.Error(w, "ask for a number of bytes, such as /bytes/1000?seed=1: "+err.Error(), http.StatusBadRequest)
		return 0, 0, false
	}
	return n, seed, true
}

// seeded is a reader of n bytes.
func seeded(n int64, seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

func writeSum(w http.ResponseWriter, from io.Reader) {
	sum := sha256.New()
	if _, err := io.Copy(sum, from); err != nil {
		http.Error(w, "the body ended early: "+err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, hex.EncodeToString(sum.Sum(nil)))
}

// state ends the listener with its connection.
func (l *oneListener) state(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		close(l.closed)
	}
}
