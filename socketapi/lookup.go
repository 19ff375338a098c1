package socketapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
)

// Looking names up, by Go's resolver.

// HostError is why a host was not found: h_errno of the look-up calls. The *net.DNSError is in the error too.
type HostError int

// The reasons, by their usual names.
const (
	HOST_NOT_FOUND HostError = 1 // no such name
	TRY_AGAIN      HostError = 2 // no answer in time, or the server has trouble
	NO_RECOVERY    HostError = 3 // any other failure
	NO_DATA        HostError = 4 // the name has no IPv4 address
)

// Error implements error.
func (e HostError) Error() string {
	switch e {
	case HOST_NOT_FOUND:
		return "host not found"
	case TRY_AGAIN:
		return "name server does not answer, try again"
	case NO_DATA:
		return "name has no IPv4 address"
	}
	return "name server failure"
}

// HostEnt is a host: its official name, other names, and its IPv4 addresses.
type HostEnt struct {
	Name    string
	Aliases []string
	Addrs   []netip.Addr
}

// ServEnt is a service: its name, port and protocol, "tcp" or "udp".
type ServEnt struct {
	Name  string
	Port  uint16
	Proto string
}

// resolver is what a Kit looks names up with; nil: net.DefaultResolver.
type resolver struct{ atomic.Pointer[net.Resolver] }

func (r *resolver) get() *net.Resolver {
	if p := r.Load(); p != nil {
		return p
	}
	return net.DefaultResolver
}

// SetResolver makes r what the look-up calls ask, such as Net.Resolver. nil is net.DefaultResolver, which asks by the kernel, and is
// the default.
func (k *Kit) SetResolver(r *net.Resolver) { k.names.Store(r) }

// GetHostByName finds a host's addresses. An address in numbers is its own answer. Errors are a HostError.
func (k *Kit) GetHostByName(name string) (*HostEnt, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		if a = a.Unmap(); !a.Is4() {
			return nil, fmt.Errorf("get host %s: %w", name, NO_DATA)
		}
		return &HostEnt{Name: name, Addrs: []netip.Addr{a}}, nil
	}
	ctx, r := context.Background(), k.names.get()
	addrs, err := r.LookupNetIP(ctx, "ip4", name)
	if err != nil {
		// The resolver says the same of a name that is not there and of one with addresses of IPv6 only.
		if reason := reasonOf(err); reason == HOST_NOT_FOUND {
			if _, err6 := r.LookupNetIP(ctx, "ip6", name); err6 == nil {
				return nil, fmt.Errorf("get host %s: %w (%w)", name, NO_DATA, err)
			}
		}
		return nil, hostError("get host", name, err)
	}
	h := &HostEnt{Name: name}
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			h.Addrs = append(h.Addrs, a)
		}
	}
	if len(h.Addrs) == 0 {
		return nil, fmt.Errorf("get host %s: %w", name, NO_DATA)
	}
	// The official name is a courtesy: without it the host was found all the same.
	if official, err := r.LookupCNAME(ctx, name); err == nil {
		if official = strings.TrimSuffix(official, "."); official != "" && !strings.EqualFold(official, strings.TrimSuffix(name, ".")) {
			h.Name, h.Aliases = official, []string{name}
		}
	}
	return h, nil
}

// GetHostByAddr finds the names of an address. Errors are a HostError.
func (k *Kit) GetHostByAddr(addr netip.Addr) (*HostEnt, error) {
	names, err := k.names.get().LookupAddr(context.Background(), addr.Unmap().String())
	if err != nil {
		return nil, hostError("get host", addr.String(), err)
	}
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], ".")
	}
	return &HostEnt{Name: names[0], Aliases: names[1:], Addrs: []netip.Addr{addr.Unmap()}}, nil
}

// GetHostName is this machine's name.
func (k *Kit) GetHostName() (string, error) { return os.Hostname() }

// GetServByName finds a service's port, such as 80 for "http". proto is "tcp", "udp", or "" for the first of the two that has it.
// ENOENT: there is no such service.
func (k *Kit) GetServByName(name, proto string) (*ServEnt, error) {
	if strings.Trim(name, "0123456789") == "" {
		return nil, fmt.Errorf("get service %q: %w: that is no name", name, syscall.ENOENT)
	}
	protos := []string{proto}
	if proto == "" {
		protos = []string{"tcp", "udp"}
	}
	for _, p := range protos {
		if p != "tcp" && p != "udp" {
			return nil, fmt.Errorf("get service %s/%s: %w", name, p, syscall.EPROTONOSUPPORT)
		}
		if port, err := k.names.get().LookupPort(context.Background(), p, name); err == nil && port > 0 {
			return &ServEnt{Name: name, Port: uint16(port), Proto: p}, nil
		}
	}
	return nil, fmt.Errorf("get service %s: %w", name, syscall.ENOENT)
}

// hostError puts a HostError in front of what the resolver says.
func hostError(what, name string, err error) error {
	return fmt.Errorf("%s %s: %w (%w)", what, name, reasonOf(err), err)
}

func reasonOf(err error) HostError {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		switch {
		case dns.IsNotFound:
			return HOST_NOT_FOUND
		case dns.IsTimeout, dns.IsTemporary:
			return TRY_AGAIN
		}
	}
	return NO_RECOVERY
}

// Resolver returns a resolver whose queries go by this Net: to these name servers in turn, or without any to those of
// /etc/resolv.conf. Servers that only the kernel reaches, such as one on its loopback, are asked by the kernel.
func (n *Net) Resolver(servers ...netip.AddrPort) *net.Resolver {
	d := &Dialer{Net: n, Fallback: true}
	var next atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if len(servers) > 0 {
			address = servers[int(next.Add(1)-1)%len(servers)].String()
		}
		return d.DialContext(ctx, network, address)
	}}
}
