package ring_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"kitnet.dev/kit/stack/ring"
)

// The two ends map the same memory at different addresses, as two processes do.
func TestRecordsOverTwoMappings(t *testing.T) {
	size := ring.Size(1024)
	fd, err := unix.MemfdCreate("ring", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Ftruncate(fd, int64(size)))
	var maps [2][]byte
	for i := range maps {
		maps[i], err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		defer unix.Munmap(maps[i])
	}
	require.NotSame(t, &maps[0][0], &maps[1][0])
	require.NoError(t, ring.Format(maps[0]))
	w, err := ring.NewWriter(maps[0])
	require.NoError(t, err)
	r, err := ring.NewReader(maps[1])
	require.NoError(t, err)
	for i := range 500 {
		require.True(t, put(w, i%200, byte(i)))
		w.Publish()
		wantRecord(t, r, i%200, byte(i))
		r.Release()
	}
	w.Close()
	require.True(t, r.Closed())
}

func TestBytesOverTwoMappings(t *testing.T) {
	size := ring.Size(4096)
	fd, err := unix.MemfdCreate("ring", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Ftruncate(fd, int64(size)))
	var maps [2][]byte
	for i := range maps {
		maps[i], err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		defer unix.Munmap(maps[i])
	}
	require.NoError(t, ring.FormatBytes(maps[0]))
	w, err := ring.NewBytesWriter(maps[0])
	require.NoError(t, err)
	r, err := ring.NewBytesReader(maps[1])
	require.NoError(t, err)
	for pos := 0; pos < 100_000; pos += 3000 {
		w.Put(1000, fill(make([]byte, 2000), pos+1000))
		w.Put(0, fill(make([]byte, 1000), pos))
		w.Commit(3000)
		a, b := r.Peek(0, 3000)
		wantBytes(t, pos, a)
		wantBytes(t, pos+len(a), b)
		require.Equal(t, 3000, len(a)+len(b))
		r.Release(3000)
	}
	r.SetLimit(7)
	require.Equal(t, 7, w.Free())
}
