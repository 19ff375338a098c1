package stack

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/linktest"
)

// TestWriteMore: bytes written with more to come leave together with the rest, or after 200 ms.
func TestWriteMore(t *testing.T) {
	p := newDuo(t, linktest.Config{})
	c, s := p.connected()
	segments := func() uint32 {
		i, ok := c.Info()
		require.True(t, ok)
		return i.SegmentsOut
	}
	write := func(f func([]byte) (int, error), text string) {
		n, err := f([]byte(text))
		require.NoError(t, err)
		require.Equal(t, len(text), n)
		p.settle()
	}
	read := func(want string) {
		b := make([]byte, 100)
		n, err := s.Read(b)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:n]))
	}
	before := segments()
	write(c.WriteMore, "GET ")
	write(c.WriteMore, "/ ")
	require.Zero(t, s.Events()&Readable, "the rest of it is to come")
	write(c.Write, "HTTP/1.1")
	read("GET / HTTP/1.1")
	require.Equal(t, before+1, segments())

	p.wait(time.Second)
	write(c.WriteMore, "no more comes")
	p.wait(190 * time.Millisecond)
	require.Zero(t, s.Events()&Readable)
	p.wait(20 * time.Millisecond)
	read("no more comes")

	write(c.Write, "and this waits for nothing")
	read("and this waits for nothing")
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())
}
