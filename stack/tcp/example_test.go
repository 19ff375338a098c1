package tcp_test

import (
	"fmt"
	"time"

	"kitnet.dev/kit/stack/clock"
	"kitnet.dev/kit/stack/ring"
	"kitnet.dev/kit/stack/tcp"
)

// pipe is an Output that keeps what was sent. A real one writes headers and
// copies payloads into frames.
type pipe []tcp.Segment

func (p *pipe) Send(s *tcp.Segment) bool {
	*p = append(*p, *s)
	return true
}

func (p *pipe) SendRun(s *tcp.Segment, mss int) int { return s.Cut(mss, p.Send) }

// deliver is one step of the receiving end: what arrived, then Emit once.
func (p *pipe) deliver(now clock.Time, to *tcp.Conn, answers *pipe) {
	for i := range *p {
		to.Arrives(now, &(*p)[i])
	}
	*p = (*p)[:0]
	to.Emit(now, answers)
}

// Two connections talk to each other through slices. Time is what we say.
func Example() {
	layer, err := tcp.NewLayer(tcp.DefaultConfig())
	if err != nil {
		fmt.Println(err)
		return
	}
	client := tcp.ID{Local: 0x0A000001, Remote: 0x0A000002, LocalPort: 40000, RemotePort: 80}
	server := tcp.ID{Local: client.Remote, Remote: client.Local, LocalPort: 80, RemotePort: 40000}
	var a, b tcp.Conn
	var aSend, aReceive, bSend, bReceive ring.Stream
	var toA, toB pipe

	now := clock.Time(time.Hour)
	a.Init(layer, client, 1500, &aSend, &aReceive)
	a.Connect(now)
	a.Emit(now, &toB)

	// The SYN belongs to no connection yet: the listener is asked.
	var answer tcp.Segment
	if layer.Listen(now, server, &toB[0], false, 1500, &answer) == tcp.Open {
		b.Init(layer, server, 1500, &bSend, &bReceive)
		b.Accept(now, &toB[0])
		b.Emit(now, &toA)
	}
	toB = toB[:0]

	now = now.Add(10 * time.Millisecond)
	toA.deliver(now, &a, &toB)
	aSend.Write([]byte("hello"))
	a.Shutdown(now)
	a.Emit(now, &toB)
	now = now.Add(10 * time.Millisecond)
	toB.deliver(now, &b, &toA)

	buf := make([]byte, 100)
	n := bReceive.Read(buf)
	b.ReceiveRead(now, n)
	fmt.Printf("%s\n", buf[:n])
	fmt.Println(a.State(), b.State(), b.Events()&tcp.EndOfStream != 0)
	// Output:
	// hello
	// FIN-WAIT-1 CLOSE-WAIT true
}
