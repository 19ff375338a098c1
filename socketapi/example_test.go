package socketapi_test

import (
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/netip"
	"time"

	"kitnet.dev/kit/socketapi"
	"kitnet.dev/kit/stack"
)

// machineWithoutCard is a stack that has only the loopback, with a Kit on it. A program with a card calls kit.Open instead.
func machineWithoutCard() (k *socketapi.Kit, end func()) {
	s := stack.New(stack.Config{})
	s.Start()
	k = socketapi.New(s)
	return k, func() {
		k.Close()
		s.Close()
	}
}

// listen makes a UDP socket on a free port of 127.0.0.1.
func listen(k *socketapi.Kit) (socketapi.Token, netip.AddrPort) {
	s, err := k.Socket(socketapi.AF_INET, socketapi.SOCK_DGRAM, 0)
	if err != nil {
		log.Fatal(err)
	}
	addr := netip.AddrPortFrom(socketapi.INADDR_LOOPBACK, 0)
	if err := k.Bind(s, &addr); err != nil {
		log.Fatal(err)
	}
	return s, addr
}

// The easiest way to receive: one message a call.
func ExampleKit_RecvFrom() {
	k, end := machineWithoutCard()
	defer end()
	receiver, addr := listen(k)
	sender, senderAddr := listen(k)

	if _, err := k.SendTo(sender, []byte("hello"), 0, addr); err != nil {
		log.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, from, err := k.RecvFrom(receiver, buf, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, from the sender: %t\n", buf[:n], from == senderAddr)
	// Output: hello, from the sender: true
}

// Many messages a call: the answer to each goes back to its sender in the same way.
func ExampleKit_ReadBatch() {
	k, end := machineWithoutCard()
	defer end()
	echo, addr := listen(k)
	client, _ := listen(k)

	out := []stack.Message{{Buf: []byte("one"), Addr: addr}, {Buf: []byte("two"), Addr: addr}, {Buf: []byte("three"), Addr: addr}}
	if _, err := k.WriteBatch(client, out, 0); err != nil {
		log.Fatal(err)
	}
	in := make([]stack.Message, 64)
	answers := make([]stack.Message, 0, len(in))
	for i := range in {
		in[i].Buf = make([]byte, 1500)
	}
	for answered := 0; answered < len(out); {
		n, err := k.ReadBatch(echo, in, 0)
		if err != nil {
			log.Fatal(err)
		}
		answers = answers[:0]
		for _, m := range in[:n] {
			answers = append(answers, stack.Message{Buf: m.Buf[:m.N], Addr: m.Addr})
		}
		if _, err := k.WriteBatch(echo, answers, 0); err != nil {
			log.Fatal(err)
		}
		answered += n
	}
	buf := make([]byte, 1500)
	for range out {
		n, _, err := k.RecvFrom(client, buf, 0)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", buf[:n])
	}
	// Output:
	// one
	// two
	// three
}

// The fastest way: a function on the engine that sees the frame before any copy, and answers in it.
func ExampleKit_Handle() {
	k, end := machineWithoutCard()
	defer end()
	server, addr := listen(k)
	client, _ := listen(k)

	err := k.Handle(server, func(p *stack.Packet) {
		room := p.Room() // begins with the question, and has place for a longer answer
		copy(room[len(p.Payload):], "?")
		p.Reply(len(p.Payload) + 1)
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := k.SendTo(client, []byte("anybody"), 0, addr); err != nil {
		log.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, _, err := k.RecvFrom(client, buf, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", buf[:n])
	// Output: anybody?
}

// Waiting for the first of several sockets, for a second at most.
func ExampleKit_Select() {
	k, end := machineWithoutCard()
	defer end()
	a, addr := listen(k)
	b, _ := listen(k)
	if _, err := k.SendTo(b, []byte("x"), 0, addr); err != nil {
		log.Fatal(err)
	}

	var read socketapi.FdSet
	read.Set(a)
	read.Set(b)
	timeout := time.Second
	n, err := k.Select(math.MaxInt64, &read, nil, nil, &timeout)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, read.IsSet(a), read.IsSet(b))
	// Output: 1 true false
}

// A stream by the Network Kit's calls: a listener for one client at a time, and the client.
func ExampleKit_Listen() {
	k, end := machineWithoutCard()
	defer end()
	server, err := k.Socket(socketapi.AF_INET, socketapi.SOCK_STREAM, 0)
	if err != nil {
		log.Fatal(err)
	}
	addr := netip.AddrPortFrom(socketapi.INADDR_LOOPBACK, 0)
	if err := k.Bind(server, &addr); err != nil {
		log.Fatal(err)
	}
	if err := k.Listen(server, 1); err != nil {
		log.Fatal(err)
	}
	client, err := k.Socket(socketapi.AF_INET, socketapi.SOCK_STREAM, 0)
	if err != nil {
		log.Fatal(err)
	}
	if err := k.Connect(client, addr); err != nil {
		log.Fatal(err)
	}
	accepted, _, err := k.Accept(server)
	if err != nil {
		log.Fatal(err)
	}
	second, err := k.Socket(socketapi.AF_INET, socketapi.SOCK_STREAM, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("a second client:", k.Connect(second, addr))

	if _, err := k.Send(client, []byte("hello"), 0); err != nil {
		log.Fatal(err)
	}
	if err := k.CloseSocket(client); err != nil { // what was sent is delivered, and then the end
		log.Fatal(err)
	}
	buf := make([]byte, 100)
	for {
		n, err := k.Recv(accepted, buf, 0)
		if err != nil {
			log.Fatal(err)
		}
		if n == 0 {
			break
		}
		fmt.Printf("%s\n", buf[:n])
	}
	fmt.Println("the end")
	// Output:
	// a second client: connection refused
	// hello
	// the end
}

// Go's own interfaces: any program of the net package, here net/http.
func ExampleKit_Net() {
	k, end := machineWithoutCard()
	defer end()
	n := k.Net()
	l, err := n.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello")
	})}
	go server.Serve(l)
	defer server.Close()

	transport := &http.Transport{DialContext: n.DialContext}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport}).Get("http://127.0.0.1/")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(body))
	// Output: hello
}
