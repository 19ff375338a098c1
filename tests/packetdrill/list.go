package main

import (
	"slices"
	"strings"
)

// fitting are the scripts of gtests/net/tcp that a TCP by the RFCs with Linux's numbers passes: folder/name. Versions of
// packetdrill append words to names.
var fitting = []string{
	"blocking/blocking-accept", "blocking/blocking-connect", "blocking/blocking-read",
	"close/close-local-close-then-remote-fin", "close/close-remote-fin-then-close", "close/close-on-syn-sent",
	"shutdown/shutdown-rd-close", "shutdown/shutdown-wr-close", "shutdown/shutdown-rdwr-close",
	"fast_retransmit/fr-4pkt", "fast_retransmit/fr-4pkt-sack", "fast_retransmit/fr-4pkt-fack-last-byte",
	"limited_transmit/limited-transmit-sack",
	"fast_recovery/prr-ss-10pkt-lost-1",
	"sack/sack-shift-sacked-2-6-8-3-9-nofack",
	"slow_start/slow-start-ack-per-1pkt", "slow_start/slow-start-ack-per-2pkt", "slow_start/slow-start-after-idle",
	"slow_start/slow-start-app-limited",
	"validate/validate-established-no-flags",
	"ts_recent/fin_tsval", "ts_recent/reset_tsval",
	"nagle/https_client", "nagle/sockopt_cork_nodelay",
	"mss/mss-setsockopt-tcp_maxseg-client",
	"user_timeout/user_timeout",
	"ecn/ecn-uses-ect0",
}

// exceptions are scripts of the list above that kit does not pass, each with the reason and its RFC section.
var exceptions = map[string]string{}

// fit picks the scripts of the list above out of all names. One that is not there by its own name is there by a longer one.
func fit(names []string) map[string]bool {
	picked := make(map[string]bool)
	for _, f := range fitting {
		if slices.Contains(names, f) {
			picked[f] = true
			continue
		}
		for _, n := range names {
			if strings.HasPrefix(n, f+"-") || strings.HasPrefix(n, f+"_") {
				picked[n] = true
			}
		}
	}
	return picked
}
