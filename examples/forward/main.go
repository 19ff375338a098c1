// forward takes TCP connections and carries them on to another address, by way of another card or of the same one: a port forwarder
// of which the kernel sees nothing. Routes choose the card. In the folder examples:
//
//	go build -o bin/ ./forward && sudo bin/forward -i eth0 -listen 10.0.0.5:8080 -o eth1 -to 10.1.0.9:80
//
// where 10.0.0.5 is eth0's address, and then from another machine:
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
	in := flag.String("i", "eth0", "network `interface`")
	listen := flag.String("listen", ":8080", "`address` to serve; without a host those of both cards")
	out := flag.String("o", "", "second network `interface`, if any")
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
	cards := kit.Config{Interface: in}
	if out != "" {
		cards.Others = []kit.CardConfig{{Interface: out}}
	}
	k, err := kit.Open(cards)
	if err != nil {
		return err
	}
	defer k.Close()
	l, err := k.Net().Listen("tcp", listen)
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
			if err := carry(stop, c.(*kit.TCPConn), k, to); err != nil {
				log.Printf("%v: %v", c.RemoteAddr(), err)
			}
		}()
	}
}

// carry copies both ways until both have ended. The end of one way is passed on, and the other goes on.
func carry(ctx context.Context, from *kit.TCPConn, k *kit.Kit, to string) error {
	defer from.Close()
	c, err := k.Net().DialContext(ctx, "tcp", to)
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
