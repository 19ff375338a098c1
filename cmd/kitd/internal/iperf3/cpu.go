package iperf3

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuClock is the processor time of the whole process, kit's engines and all.
type cpuClock struct {
	at           time.Time
	user, system time.Duration
}

func readCPU() cpuClock {
	c := cpuClock{at: time.Now()}
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil { // which only fails on a bad argument
		c.user = time.Duration(r.Utime.Nano())
		c.system = time.Duration(r.Stime.Nano())
	}
	return c
}

// since is the use from an earlier moment on, in percent of one core.
func (c cpuClock) since(b cpuClock) (total, user, system float64) {
	wall := c.at.Sub(b.at)
	if wall <= 0 {
		return 0, 0, 0
	}
	user = 100 * float64(c.user-b.user) / float64(wall)
	system = 100 * float64(c.system-b.system) / float64(wall)
	return user + system, user, system
}
