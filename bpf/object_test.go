package bpf

import (
	"encoding/binary"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

// Both byte orders are there and hold the same programs, maps and types.
func TestBothObjectsAreAlike(t *testing.T) {
	little, err := ebpf.LoadCollectionSpec("kit_bpfel.o")
	require.NoError(t, err)
	big, err := ebpf.LoadCollectionSpec("kit_bpfeb.o")
	require.NoError(t, err)
	require.Equal(t, binary.ByteOrder(binary.LittleEndian), little.ByteOrder)
	require.Equal(t, binary.ByteOrder(binary.BigEndian), big.ByteOrder)

	require.Len(t, big.Maps, len(little.Maps))
	for name, l := range little.Maps {
		b := big.Maps[name]
		require.NotNil(t, b, name)
		require.Equal(t, []any{l.Type, l.KeySize, l.ValueSize, l.MaxEntries, l.Flags},
			[]any{b.Type, b.KeySize, b.ValueSize, b.MaxEntries, b.Flags}, name)
	}
	require.Len(t, big.Programs, len(little.Programs))
	for name, l := range little.Programs {
		b := big.Programs[name]
		require.NotNil(t, b, name)
		require.Equal(t, []any{l.Type, l.AttachType, l.SectionName, l.License, l.Flags},
			[]any{b.Type, b.AttachType, b.SectionName, b.License, b.Flags}, name)
		require.Equal(t, "Dual MIT/GPL", b.License)
	}
	require.Equal(t, little.Variables[bpfVarConfig].Offset, big.Variables[bpfVarConfig].Offset)
	require.Equal(t, little.Variables[bpfVarConfig].Size(), big.Variables[bpfVarConfig].Size())
}

func TestSpec(t *testing.T) {
	for _, program := range []Program{Frags, Linear} {
		spec, err := Spec(program, 7)
		require.NoError(t, err)
		require.Len(t, spec.Programs, 1)
		require.Contains(t, spec.Programs, string(program))
		require.EqualValues(t, 7, spec.Maps[XSKMap].MaxEntries)
		require.EqualValues(t, MaxAddresses+1, spec.Maps[bpfMapPorts].MaxEntries)
		require.Zero(t, spec.Variables[bpfVarConfig].Offset)
		require.Contains(t, spec.Maps, configMap)
	}
	_, err := Spec(Frags, 0)
	require.ErrorContains(t, err, "0 queues")
	_, err = Spec("kit_tc", 1)
	require.ErrorContains(t, err, "kit_tc")
}

// kit.h is where the numbers come from; Go says them again.
func TestConstantsAreThoseOfTheHeader(t *testing.T) {
	source, err := os.ReadFile("kit.h")
	require.NoError(t, err)
	text := string(source)
	define := func(name string) string {
		found := regexp.MustCompile(`(?m)^#define\s+` + name + `\s+(\w+)`).FindStringSubmatch(text)
		require.NotNil(t, found, name)
		return found[1]
	}
	require.Equal(t, "256", define("KIT_CELLS"))
	require.Len(t, bpfKitConfig{}.Cells, 256)
	require.Equal(t, "24", define("KIT_CELLS_SHIFT"))
	require.EqualValues(t, 24, hashShift)
	require.Equal(t, "0x9e3779b1u", define("KIT_HASH"))
	require.EqualValues(t, uint32(0x9e3779b1), uint32(hashFactor))

	require.Equal(t, []string{"REMOVED", "SHARED", "OWNED", "BROADCAST"}, enumerators(t, text, "kit_kind"))
	require.Equal(t, []Kind{0, 1, 2, 3}, []Kind{removed, Shared, Owned, Broadcast})
	require.Equal(t, []string{"UDP", "TCP", "ECHO", "SPACES"}, enumerators(t, text, "kit_space"))
	require.Equal(t, []space{0, 1, 2}, []space{spaceUDP, spaceTCP, spaceEcho})

	names := enumerators(t, text, "kit_reason")
	require.Len(t, names, Reasons+1)
	for r := range Reason(Reasons) {
		require.Equal(t, strings.ToLower(names[r]), r.String())
		require.Equal(t, strings.HasPrefix(r.String(), "xsk_"), r.Steered())
		require.NotEmpty(t, r.Help())
	}
	require.EqualValues(t, Reasons-1, XSKFragment)
}

// enumerators are the names in a C enum, without KIT_, in order.
func enumerators(t *testing.T, text, enum string) (names []string) {
	body := regexp.MustCompile(`(?s)enum ` + enum + ` \{(.*?)\n\};`).FindStringSubmatch(text)
	require.NotNil(t, body, enum)
	for _, found := range regexp.MustCompile(`(?m)^\tKIT_(\w+)`).FindAllStringSubmatch(body[1], -1) {
		names = append(names, found[1])
	}
	return names
}

func TestStatsSums(t *testing.T) {
	var s Stats
	for r := range s {
		s[r] = 1 << r
	}
	require.EqualValues(t, 1<<XSKOwned-1, s.Passed())
	require.EqualValues(t, 1<<Reasons-1, s.Passed()+s.Steered())
}
