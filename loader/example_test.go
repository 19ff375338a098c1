package loader_test

import (
	"fmt"
	"log/slog"
	"net/netip"

	"kitnet.dev/kit/bpf"
	"kitnet.dev/kit/loader"
)

// Answer every frame that kit owns an address for, on every queue of a card.
func Example() {
	device, err := loader.Open(loader.Config{Interface: "eth0", Logger: slog.Default()})
	if err != nil {
		fmt.Println(err) // one sentence that ends with what to do
		return
	}
	defer device.Close()

	tables := device.Tables()
	if err := tables.SetAddress(netip.MustParseAddr("10.0.0.5"), bpf.Owned); err != nil {
		fmt.Println(err)
		return
	}
	if err := tables.SetEnabled(true); err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	for _, link := range device.Links() {
		go func() {
			input := func(frame []byte) {
				copy(frame[0:6], frame[6:12]) // back to where it came from
				link.Send(frame)
			}
			for {
				n := link.Poll(256, input)
				if pending := link.Flush(); pending || n > 0 {
					continue
				}
				if err := link.Wait(-1); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	fmt.Println(<-done)
}

// Send one frame.
func ExampleLink_Alloc() {
	send := func(link *loader.Link, message []byte) bool {
		frame := link.Alloc()
		if frame == nil {
			return false // nothing is free until Flush has reaped what was sent
		}
		return link.Send(frame[:copy(frame, message)])
	}
	_ = send
}

// Say what stands in the way of kit on a card.
func ExampleProbe() {
	facts, err := loader.Probe("eth0")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range facts.Findings(loader.Config{FrameSize: 4096}) {
		fmt.Println(f.Severity, f.Topic+":", f.What, f.Fix)
	}
}
