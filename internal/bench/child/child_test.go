package child

import (
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBeginWantsATask(t *testing.T) {
	_, err := Begin(nil)
	require.EqualError(t, err, "bench: a child process takes one argument, its task, but got 0")
	_, err = Begin([]string{"{"})
	require.ErrorContains(t, err, "bench: read the child's task: ")
	_, err = Begin([]string{`{"cpu":1000}`})
	require.Error(t, err, "there is no such core")
}

func TestCommandEndsInTheTask(t *testing.T) {
	program := append(make([]string, 0, 8), "/bin/echo", "first")
	cmd, err := Command(program, Task{Subject: "a subject", Role: StreamEcho})
	require.NoError(t, err)
	require.Equal(t, []string{"/bin/echo", "first"}, cmd.Args[:2])
	require.Contains(t, cmd.Args[2], `"subject":"a subject","role":"stream-echo"`)
	require.Empty(t, program[:3][2], "the caller's list stays")
}

func TestRunSaysWhatFailed(t *testing.T) {
	err := Run(Task{Subject: "a subject", Role: Echo}, func(Task, *Counters, func()) error { return errors.New("no card") })
	require.EqualError(t, err, "bench: echo as a subject: no card")
}

func TestServeStreamRefusesDatagrams(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	err = ServeStream(ln, Task{Role: Echo}, new(Counters), func() { t.Error("ready") })
	require.EqualError(t, err, `"echo" is no role with TCP`)
}

func TestRoomIsLessForMany(t *testing.T) {
	require.Equal(t, Bulk, Room(0))
	require.Equal(t, Bulk, Room(1))
	require.Equal(t, Bulk, Room(100))
	require.Equal(t, 32<<10, Room(1024))
	require.Equal(t, 16<<10, Room(10_000))
}

func TestLineHasMore(t *testing.T) {
	var c Counters
	c.Received.Store(7)
	require.Regexp(t, `^7 0 \d+ \d+ \d+$`, c.line())
	c.More = []float64{0.5, 1e-7}
	require.Regexp(t, `^7 0 \d+ \d+ \d+ 0\.5 1e-07$`, c.line())
}
