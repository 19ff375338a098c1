package loader

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Two queues' packet memories, whose lists of free chunks are written with each frame sent, lie on no common cache line.
func TestQueuesShareNoCacheLines(t *testing.T) {
	const line = 64
	ends := make(map[uintptr]int)
	memories := make([]*umem, 8)
	for queue := range memories {
		memories[queue] = newUmem(make([]byte, 4*2048), 2048, 4, 1, 0)
	}
	for queue, u := range memories {
		at := uintptr(unsafe.Pointer(u))
		for l := at / line; l <= (at+unsafe.Sizeof(umem{})-1)/line; l++ {
			other, taken := ends[l]
			require.False(t, taken && other != queue, "queues %d and %d", other, queue)
			ends[l] = queue
		}
	}
}
