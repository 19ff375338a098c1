package loader

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModeNames(t *testing.T) {
	for name, mode := range map[string]AttachMode{"auto": AttachAuto, "native": AttachNative, "generic": AttachGeneric} {
		var m AttachMode
		require.NoError(t, m.UnmarshalText([]byte(name)))
		require.Equal(t, mode, m)
		text, err := m.MarshalText()
		require.NoError(t, err)
		require.Equal(t, name, string(text))
	}
	for name, mode := range map[string]CopyMode{"auto": CopyAuto, "zerocopy": CopyZero, "copy": CopyAlways} {
		var m CopyMode
		require.NoError(t, m.UnmarshalText([]byte(name)))
		require.Equal(t, mode, m)
		require.Equal(t, name, m.String())
	}
	var m CopyMode
	require.ErrorIs(t, m.UnmarshalText([]byte("fast")), ErrConfig)
	require.ErrorContains(t, m.UnmarshalText([]byte("fast")), `copy mode "fast" is none of [auto zerocopy copy]`)
	require.Equal(t, "mode 9", CopyMode(9).String())
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		mtu    int
		want   geometry
		rings  ringSizes
	}{
		{"defaults", Config{}, 1500, geometry{2048, 8192, 4096, 1, 0, 1500, 1518}, ringSizes{4096, 4096, 8192, 4096}},
		{"the largest MTU of small frames", Config{}, 1774, geometry{2048, 8192, 4096, 1, 0, 1774, 1792}, ringSizes{4096, 4096, 8192, 4096}},
		{"the smallest of large frames", Config{}, 1775, geometry{4096, 8192, 4096, 1, 0, 1775, 1793}, ringSizes{4096, 4096, 8192, 4096}},
		{"small frames by request", Config{FrameSize: 2048}, 1775, geometry{2048, 8192, 4096, 1, 0, 1775, 1793}, ringSizes{4096, 4096, 8192, 4096}},
		{"jumbo", Config{}, 9000, geometry{4096, 8192, 4096, 3, 1365, 9000, 9018}, ringSizes{4096, 4096, 8192, 4096}},
		{"jumbo in small frames", Config{FrameSize: 2048}, 9000, geometry{2048, 8192, 4096, 5, 819, 9000, 9018}, ringSizes{4096, 4096, 8192, 4096}},
		{"jumbo card, small MTU", Config{MTU: 1500}, 9000, geometry{4096, 8192, 4096, 1, 0, 1500, 9018}, ringSizes{4096, 4096, 8192, 4096}},
		{"the longest there is", Config{}, 65535, geometry{4096, 8192, 4096, 17, 240, 65535, 65553}, ringSizes{4096, 4096, 8192, 4096}},
		{"more frames than two rings", Config{RingSize: 64, Frames: 3000}, 1500, geometry{2048, 3000, 64, 1, 0, 1500, 1518}, ringSizes{64, 64, 4096, 64}},
		{"the largest", Config{RingSize: 16384}, 1500, geometry{2048, 32768, 16384, 1, 0, 1500, 1518}, ringSizes{16384, 16384, 32768, 16384}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := c.config.plan(c.mtu)
			require.NoError(t, err)
			require.Equal(t, c.want, g)
			require.Equal(t, c.rings, g.rings(true))
			require.Zero(t, g.rings(false).tx)
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		config Config
		mtu    int
		is     error
		says   string
	}{
		{Config{RingSize: 100}, 1500, ErrConfig, "a ring size of 100: want a power of two from 64 to 16384"},
		{Config{RingSize: 32}, 1500, ErrConfig, "a ring size of 32"},
		{Config{RingSize: 32768}, 1500, ErrConfig, "a ring size of 32768"},
		{Config{RingSize: -64}, 1500, ErrConfig, "a ring size of -64"},
		{Config{Frames: 8191}, 1500, ErrConfig, "8191 frames with rings of 4096: want from 8192"},
		{Config{Frames: 32769}, 1500, ErrConfig, "to 32768"},
		{Config{FrameSize: 8192}, 1500, ErrConfig, "a frame size of 8192 bytes: AF_XDP has 2048 and 4096"},
		{Config{Interface: "eth0", MTU: 9000}, 1500, ErrConfig, "ip link set dev eth0 mtu 9000"},
		{Config{MTU: 67}, 1500, ErrConfig, "IPv4 needs 68"},
		{Config{FrameSize: 2048}, 65535, ErrMTU, "use a frame size of 4096"},
	} {
		_, err := c.config.plan(c.mtu)
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, c.says)
	}
}

func TestBindModes(t *testing.T) {
	zero, zeroSG := bindMode{zeroCopy: true}, bindMode{zeroCopy: true, scatter: true}
	copies, copySG := bindMode{}, bindMode{scatter: true}
	for _, c := range []struct {
		name     string
		config   Config
		mtu      int
		attached AttachMode
		scatter  bool
		segments int
		want     []bindMode
	}{
		{"the usual", Config{}, 1500, AttachNative, true, 1, []bindMode{zero, copySG, copies}},
		{"an old kernel", Config{}, 1500, AttachNative, false, 1, []bindMode{zero, copies}},
		{"generic always copies", Config{}, 1500, AttachGeneric, true, 1, []bindMode{copySG, copies}},
		{"copy by request", Config{Copy: CopyAlways}, 1500, AttachNative, true, 1, []bindMode{copySG, copies}},
		{"zero-copy by request", Config{Copy: CopyZero}, 1500, AttachNative, true, 1, []bindMode{zero}},
		{"zero-copy and generic", Config{Copy: CopyZero}, 1500, AttachGeneric, true, 1, nil},
		{"jumbo", Config{}, 9000, AttachNative, true, 8, []bindMode{zeroSG, copySG}},
		{"jumbo, the driver joins too few", Config{}, 9000, AttachNative, true, 2, []bindMode{copySG}},
		{"jumbo, the driver joins none", Config{}, 9000, AttachNative, true, 1, []bindMode{copySG}},
		{"jumbo, an old kernel", Config{}, 9000, AttachNative, false, 1, nil},
		{"jumbo, zero-copy by request, the driver joins none", Config{Copy: CopyZero}, 9000, AttachNative, true, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := c.config.plan(c.mtu)
			require.NoError(t, err)
			require.Equal(t, c.want, c.config.modes(g, c.attached, c.scatter, c.segments))
		})
	}
}

// An MTU that no mode carries is refused with what to set it to.
func TestNoModeSaysWhatFits(t *testing.T) {
	for _, c := range []struct {
		config Config
		mtu    int
		attach AttachMode
		is     error
		says   string
	}{
		{Config{Interface: "eth0"}, 9000, AttachNative, ErrMTU, "needs Linux 6.6; ip link set dev eth0 mtu 3822"},
		{Config{Interface: "eth0", FrameSize: 2048}, 3000, AttachNative, ErrMTU, "use a frame size of 4096, or ip link set dev eth0 mtu 1774"},
		{Config{Interface: "eth0", Copy: CopyZero}, 9000, AttachNative, ErrMTU, "use copy mode, or ip link set dev eth0 mtu 3822"},
		{Config{Interface: "eth0", Copy: CopyZero}, 1500, AttachGeneric, ErrNoZeroCopy, "use copy mode"},
	} {
		g, err := c.config.plan(c.mtu)
		require.NoError(t, err)
		d := &Device{info: Info{Attach: c.attach}}
		err = d.noMode(&c.config, g)
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, c.says)
	}
}

func TestChooseQueues(t *testing.T) {
	numbers, err := (&Config{}).chooseQueues(3)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2}, numbers)
	numbers, err = (&Config{Queues: []int{3, 1}}).chooseQueues(4)
	require.NoError(t, err)
	require.Equal(t, []int{1, 3}, numbers)
	for says, queues := range map[string][]int{"it receives on queues 0 to 3": {4}, "queues [-1]": {-1}, "twice": {1, 2, 1}, "no queue": {}} {
		_, err := (&Config{Queues: queues, Interface: "eth0"}).chooseQueues(4)
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, says)
	}
}

func TestKernelVersions(t *testing.T) {
	for release, want := range map[string]KernelVersion{
		"6.1.0-13-amd64": {6, 1}, "5.10.0": {5, 10}, "6.18.44-fc-v669": {6, 18}, "7.3": {7, 3}, "6.12-rc1": {6, 12},
	} {
		got, err := parseKernel(release)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := parseKernel("GNU")
	require.ErrorIs(t, err, ErrKernel)
	require.True(t, KernelVersion{5, 9}.Before(leastKernel))
	require.False(t, KernelVersion{5, 10}.Before(leastKernel))
	require.False(t, KernelVersion{6, 1}.Before(leastKernel))
	require.Equal(t, "5.10", leastKernel.String())
}
