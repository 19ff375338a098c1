// telemetry collects counters that come over UDP, in statsd's words: "requests:1|c", one or more lines a datagram. It takes datagrams
// from the card in batches, so that each call into kit brings many. In the folder examples:
//
//	go build -o bin/ ./telemetry && sudo bin/telemetry -i eth0 -listen 0.0.0.0:8125
//
// and then from another machine, with this one's address:
//
//	echo 'requests:1|c' | nc -u -w 1 10.0.0.5 8125
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"kitnet.dev/kit"
)

func main() {
	card := flag.String("i", "eth0", "network `interface`")
	var local netip.AddrPort
	flag.TextVar(&local, "listen", netip.MustParseAddrPort("0.0.0.0:8125"), "IPv4 `address` and port to serve")
	every := flag.Duration("every", 10*time.Second, "`time` between reports")
	flag.Parse()
	if err := run(*card, local, *every); err != nil {
		log.Fatal(err)
	}
}

func run(card string, local netip.AddrPort, every time.Duration) error {
	k, err := kit.Open(kit.Config{Interface: card})
	if err != nil {
		return err
	}
	defer k.Close()
	s, err := k.Socket(kit.AF_INET, kit.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(k.SetSockOptInt(s, kit.SOL_SOCKET, kit.SO_RCVBUF, 16<<20), k.SetTimeout(s, kit.SO_RCVTIMEO, every), k.Bind(s, &local)); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() { <-stop; _ = k.CloseSocket(s) }() // which ends ReadBatch
	log.Printf("serving on %v of %s", local, card)
	messages := make([]kit.Message, 256)
	for i := range messages {
		messages[i].Buf = make([]byte, 2048)
	}
	counters, datagrams, calls, reported := map[string]*int64{}, 0, 0, time.Now()
	for {
		n, err := k.ReadBatch(s, messages, 0)
		for _, m := range messages[:n] {
			count(counters, m.Buf[:m.N])
		}
		datagrams, calls = datagrams+n, calls+1
		over := errors.Is(err, syscall.EINTR)
		if err != nil && !over && !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if now := time.Now(); over || now.Sub(reported) >= every {
			fmt.Printf("%d datagrams by %d calls\n", datagrams, calls)
			for _, name := range slices.Sorted(maps.Keys(counters)) {
				fmt.Printf("%s %d\n", name, *counters[name])
			}
			reported = now
		}
		if over {
			return nil
		}
	}
}

// count adds up the lines of a datagram. What is no counter is left out.
func count(counters map[string]*int64, datagram []byte) {
	for line := range bytes.Lines(datagram) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		number, counts := bytes.CutSuffix(value, []byte("|c"))
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil || !counts || len(name) == 0 {
			continue
		}
		if counters[string(name)] == nil { // a map's look-up makes no string
			counters[string(name)] = new(int64)
		}
		*counters[string(name)] += n
	}
}
