package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Service is a built-in service and where it answers.
type Service struct {
	Name string     // one of ServiceNames
	Addr netip.Addr // zero: every address of the card
	Port uint16
}

// String is the form that --serve takes.
func (s Service) String() string {
	host := ""
	if s.Addr.IsValid() {
		host = s.Addr.String()
	}
	return fmt.Sprintf("%s=%s:%d", s.Name, host, s.Port)
}

// Protocols are those that a service takes its port of.
func (s Service) Protocols() (tcp, udp bool) {
	udp = strings.HasPrefix(s.Name, "udp-")
	return !udp, udp || s.Name == "iperf3" // for the time of a UDP test
}

// overlaps reports whether two services want the same port of one address and protocol.
func (s Service) overlaps(o Service) bool {
	tcp, udp := s.Protocols()
	otherTCP, otherUDP := o.Protocols()
	return (tcp && otherTCP || udp && otherUDP) && s.Port == o.Port && (!s.Addr.IsValid() || !o.Addr.IsValid() || s.Addr == o.Addr)
}

// ServiceNames lists the services that there are.
func ServiceNames() []string {
	return []string{"udp-echo", "udp-discard", "udp-chargen", "tcp-echo", "tcp-discard", "tcp-chargen", "http", "iperf3"}
}

// setService reads NAME=ADDR.
func setService(c *Config, text string) error {
	name, where, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("is not NAME=ADDR, such as udp-echo=:7")
	}
	if !slices.Contains(ServiceNames(), name) {
		return fmt.Errorf("is no service of kitd; did you mean %s? There are %s",
			nearest(name, ServiceNames()), strings.Join(ServiceNames(), ", "))
	}
	s := Service{Name: name}
	host, port, ok := strings.Cut(where, ":")
	number, err := strconv.ParseUint(port, 10, 16)
	if !ok || err != nil || number == 0 {
		return errors.New("has no address and port behind =, such as :7 or 10.0.0.5:7")
	}
	s.Port = uint16(number)
	if host != "" {
		if s.Addr, err = netip.ParseAddr(host); err != nil || !s.Addr.Is4() {
			return errors.New("has no IPv4 address behind =, such as 10.0.0.5:7; an empty one means every address of the card")
		}
		if s.Addr.IsUnspecified() {
			s.Addr = netip.Addr{}
		}
	}
	c.Services = append(c.Services, s)
	return nil
}
