package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Trailers of a capture.
const (
	trailerCaptured = "Kit-Captured"
	trailerLost     = "Kit-Lost"
)

// maxCaptures bounds the captures that run at once, since each sees every frame.
const maxCaptures = 8

// Server answers for a Source.
type Server struct {
	source   Source
	http     http.Server
	stop     context.CancelFunc // ends captures
	captures chan struct{}      // one element each
}

// NewServer makes a server; Serve starts it.
func NewServer(source Source) *Server {
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{source: source, stop: stop, captures: make(chan struct{}, maxCaptures)}
	s.http = http.Server{
		Handler:           s.handler(ctx),
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	return s
}

// Serve answers on the listener until Close; then it returns nil.
func (s *Server) Serve(l *Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends captures, lets other answers finish for at most a second, and
// closes the listener.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

func (s *Server) handler(stopped context.Context) http.Handler {
	mux := http.NewServeMux()
	noun := func(name string, get func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
			document, err := get(r)
			if err != nil {
				refuse(w, http.StatusBadRequest, err.Error())
				return
			}
			answer(w, http.StatusOK, document)
		})
	}
	noun("status", func(*http.Request) (any, error) { return s.source.Status(), nil })
	noun("stats", func(*http.Request) (any, error) { return s.source.Stats(), nil })
	noun("sockets", func(r *http.Request) (any, error) { return s.source.Sockets(r.URL.Query().Get("filter")) })
	noun("neighbors", func(*http.Request) (any, error) { return s.source.Neighbors(), nil })
	noun("routes", func(*http.Request) (any, error) { return s.source.Routes(), nil })
	noun("queues", func(*http.Request) (any, error) { return s.source.Queues(), nil })
	mux.HandleFunc("GET /v1/capture", func(w http.ResponseWriter, r *http.Request) { s.capture(stopped, w, r) })
	mux.HandleFunc("POST /v1/connect", func(w http.ResponseWriter, r *http.Request) { s.connect(stopped, w, r) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			refuse(w, http.StatusMethodNotAllowed, "method "+strconv.Quote(r.Method)+" is not known here: everything but connect is read with GET")
			return
		}
		refuse(w, http.StatusNotFound, "nothing is called "+strconv.Quote(r.URL.Path)+
			" here: /v1/ has status, stats, sockets, neighbors, routes, queues and capture")
	})
	return mux
}

func answer(w http.ResponseWriter, code int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(document) // the asker may have gone
}

func refuse(w http.ResponseWriter, code int, why string) {
	answer(w, code, Error{Version: Version, Message: why})
}

// capture streams packets. It ends with the request, or when the server does.
func (s *Server) capture(stopped context.Context, w http.ResponseWriter, r *http.Request) {
	request, err := captureRequest(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	run, err := s.source.Capture(request)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	select {
	case s.captures <- struct{}{}:
		defer func() { <-s.captures }()
	default:
		refuse(w, http.StatusServiceUnavailable, "capture refused: "+strconv.Itoa(maxCaptures)+" are running; end one of them")
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(stopped, cancel)()

	contentType := map[string]string{FormatPcapng: "application/x-pcapng", FormatText: "text/plain; charset=utf-8"}
	w.Header().Set("Content-Type", contentType[request.Format])
	w.Header().Set("Trailer", trailerCaptured+", "+trailerLost)
	w.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(w)
	result := run(ctx, &flushed{w, flusher}, func() { _ = flusher.Flush() })
	w.Header().Set(trailerCaptured, strconv.FormatUint(result.Captured, 10))
	w.Header().Set(trailerLost, strconv.FormatUint(result.Lost, 10))
}

// flushed sends each Write on its way at once.
type flushed struct {
	w       io.Writer
	flusher *http.ResponseController
}

// Write writes and flushes.
func (f *flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.flusher.Flush()
	}
	return n, err
}

// captureRequest reads the query of /v1/capture.
func captureRequest(r *http.Request) (CaptureRequest, error) {
	q := r.URL.Query()
	request := CaptureRequest{Format: q.Get("format"), Filter: q.Get("filter")}
	switch request.Format {
	case "":
		request.Format = FormatPcapng
	case FormatPcapng, FormatText:
	default:
		return request, errors.New("capture format " + strconv.Quote(request.Format) + " is not known: use pcapng or text")
	}
	var err error
	if text := q.Get("count"); text != "" {
		if request.Count, err = strconv.ParseUint(text, 10, 64); err != nil || request.Count == 0 {
			return request, errors.New("capture count " + strconv.Quote(text) + " is not a positive number")
		}
	}
	if text := q.Get("drops"); text != "" {
		if request.Drops, err = strconv.ParseBool(text); err != nil {
			return request, errors.New("capture drops " + strconv.Quote(text) + " is neither 1 nor 0")
		}
	}
	return request, nil
}
