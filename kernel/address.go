package kernel

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Addresses lists the IPv4 addresses of an interface in the calling thread's network namespace, each with the length of its
// network, in the kernel's order: the first is the one that it prefers. An address with a peer has 32 bits.
func Addresses(ifname string) ([]netip.Prefix, error) {
	r, err := openRequests()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", ifname, err)
	}
	defer r.close()
	l, err := r.link(ifname, 0)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w; `ip link` lists the interfaces", ifname, err)
	}
	all, err := r.addresses()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", ifname, err)
	}
	return prefixesOf(all, l.index), nil
}

func prefixesOf(all []address, index int) (prefixes []netip.Prefix) {
	for _, a := range all {
		if a.index == index {
			prefixes = append(prefixes, a.prefix)
		}
	}
	return prefixes
}

// sharedPrefixesOf is prefixesOf without those that the stack can't share: loopback addresses, which are its own loopback's,
// and what is not the address of a host at all.
func sharedPrefixesOf(all []address, index int) []netip.Prefix {
	return slices.DeleteFunc(prefixesOf(all, index), func(p netip.Prefix) bool {
		a := p.Addr()
		return a.IsUnspecified() || a.IsLoopback() || a.As4()[0] >= 224 || p.Bits() == 0
	})
}

// HasAddress reports which interface of the calling thread's network namespace has addr, and with which network length; ok
// is false where none has.
func HasAddress(addr netip.Addr) (ifname string, prefix netip.Prefix, ok bool, err error) {
	r, err := openRequests()
	if err != nil {
		return "", netip.Prefix{}, false, fmt.Errorf("look for %s among the kernel's addresses: %w", addr, err)
	}
	defer r.close()
	all, err := r.addresses()
	if err != nil {
		return "", netip.Prefix{}, false, fmt.Errorf("look for %s among the kernel's addresses: %w", addr, err)
	}
	for _, a := range all {
		if a.prefix.Addr() != addr.Unmap() {
			continue
		}
		l, err := r.link("", a.index)
		if err != nil {
			return "", netip.Prefix{}, false, fmt.Errorf("name the interface that has %s: %w", addr, err)
		}
		return l.name, a.prefix, true, nil
	}
	return "", netip.Prefix{}, false, nil
}

// CheckOwned refuses an address that kit is to own although the kernel has it: both would answer. The error wraps
// unix.EADDRINUSE and says what to do.
func CheckOwned(addr netip.Addr) error {
	ifname, prefix, ok, err := HasAddress(addr)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	return fmt.Errorf("own address %s: the kernel has it on %s: %w; take it from the kernel with `ip address del %s dev %s`, "+
		"or name no address to share the kernel's", addr, ifname, unix.EADDRINUSE, prefix, ifname)
}
