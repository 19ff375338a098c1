// forward takes TCP connections on one card and carries them on over another, or over the same one: a port forwarder of which the
// kernel sees nothing. In the folder examples:
//
//	go build -o bin/ ./forward && sudo bin/forward -i eth0 -listen :8080 -o eth1 -to 10.1.0.9:80
//
// and then from another machine, with this one's address on eth0:
//
//	curl http://10.0.0.5:8080/
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"os/signal"
	"sync"
	"syscall"

	"kitnet.dev/kit"
)

func main() {
	in := flag.String("i", "eth0", "network `interface` to take connections on")
	listen := flag.String("listen", ":8080", "`address` to serve")
	out := flag.String("o", "", "network `interface` to carry them on over; none: the same")
	to := flag.String("to", "", "`address` to carry them to")
	flag.Parse()
	if err := run(*in, *listen, *out, *to); err != nil {
		log.Fatal(err)
	}
}

func run(in, listen, out, to string) error {
	if to == "" {
		return errors.New("where to? -to 10.1.0.9:80")
	}
	near, err := kit.Open(kit.Config{Interface: in})
	if err != nil {
		return err
	}
	defer near.Close()
	far := near
	if out != "" && out != in { // a Kit has one card
		if far, err = kit.Open(kit.Config{Interface: out}); err != nil {
			return err
		}
		defer far.Close()
	}
	l, err := near.Net().Listen("tcp", listen)
	if err != nil {
		return err
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(stop, func() { _ = l.Close() })
	log.Printf("serving on %v of %s", l.Addr(), in)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			if err := carry(stop, c.(*kit.TCPConn), far, to); err != nil {
				log.Printf("%v: %v", c.RemoteAddr(), err)
			}
		}()
	}
}

// carry copies both ways until both have ended. The end of one way is passed on, and the other goes on.
func carry(ctx context.Context, from *kit.TCPConn, far *kit.Kit, to string) error {
	defer from.Close()
	c, err := far.Net().DialContext(ctx, "tcp", to)
	if err != nil {
		_ = from.SetLinger(0) // the client learns it by a reset
		return err
	}
	defer c.Close()
	onward := c.(*kit.TCPConn)
	var back error
	var done sync.WaitGroup
	done.Go(func() { back = pass(from, onward) })
	err = pass(onward, from)
	done.Wait()
	return errors.Join(err, back)
}

func pass(to, from *kit.TCPConn) error {
	_, err := io.Copy(to, from)
	return errors.Join(err, to.CloseWrite())
}
