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

// known says why other scripts do not pass, by their names or by those of the folders that they are in.
var known = []struct {
	why   string
	names []string
}{
	{"kit has no MSG_EOR", []string{"eor"}},
	{"the shim has no epoll", []string{"epoll"}},
	{"kit has no TCP fast open (RFC 7413)", []string{"fastopen", "syscall_bad_arg/fastopen-invalid-buf-ptr"}},
	{"kit has no TCP_INQ", []string{"inq"}},
	{"kit has no TCP MD5 (RFC 2385)", []string{"md5"}},
	{"kit does not probe for larger MTUs (RFC 4821), and sees no route of the namespace", []string{"mtu_probe"}},
	{"kit has no TCP_NOTSENT_LOWAT", []string{"notsent_lowat"}},
	{"packetdrill hands no sendfile over", []string{"sendfile"}},
	{"the shim has no splice", []string{"splice"}},
	{"kit has no SO_TIMESTAMPING", []string{"timestamping"}},
	{"kit has no MSG_ZEROCOPY", []string{"zerocopy", "syscall_bad_arg/sendmsg-empty-iov"}},
	{"Linux counts the memory of its buffers, kit the text in them", []string{"blocking/blocking-write"}},
	{"HyStart++ (RFC 9406) leaves slow start by other rules than Linux's HyStart", []string{
		"cubic/cubic-bulk-166k", "cubic/cubic-bulk-166k-idle-restart", "cubic/cubic-hystart-delay-rtt-jumps-upward",
	}},
	{"kit counts segments that were reordered, Linux ACKs that show some; and it drops packets in a qdisc", []string{
		"cubic/cubic-rack-reo-timeout-retrans-failed-incoming-data",
	}},
	{"Linux sets PSH whenever half a window was written", []string{"cubic/cubic-rto-ss-ca-cwnd-bump"}},
	{"PRR-SSRB (RFC 6937 section 3.1) adds a segment, as Linux 6.18 does", []string{
		"cwnd_moderation/cwnd-moderation-ecn-enter-cwr-no-moderation-700",
	}},
	{"RACK.rtt is that of the segment sent last (RFC 8985 section 6.2); Linux takes the last one in its queue", []string{
		"fast_recovery/prr-ss-ack-below-snd_una-cubic",
	}},
	{"RACK waits a quarter of the least round trip (RFC 8985 section 6.2); Linux adds ticks of its clock", []string{
		"fast_retransmit/fr-4pkt-fack-last-mss",
	}},
	{"packets come one by one here, not gathered by GRO", []string{"gro/gro-mss-option"}},
	{"what MSG_MORE holds back waits for the rest or 200 ms, as with TCP_CORK; Linux lets it go with the next ACK", []string{
		"nagle/sendmsg_msg_more",
	}},
	{"Linux sets PSH on two segments that it sends again as one", []string{"sack/sack-route-refresh-ip-tos"}},
	{"it paces by the qdisc fq", []string{"slow_start/slow-start-fq-ack-per-2pkt"}},
	{"kit does not count for how long the window or the buffer was the limit", []string{
		"tcp_info/tcp-info-rwnd-limited", "tcp_info/tcp-info-sndbuf-limited",
	}},
	{"an ACK of what was never sent is answered (RFC 9293 section 3.10.7.4, RFC 5961 section 5), as Linux 6.18 does", []string{
		"ts_recent/invalid_ack",
	}},
	{"it drops packets in a qdisc", []string{"user_timeout/user-timeout-probe"}},
}

// knownFor is what is known of a script that does not pass, empty for nothing.
func knownFor(name string) string {
	for _, k := range known {
		for _, n := range k.names {
			if name == n || strings.HasPrefix(name, n+"/") {
				return k.why
			}
		}
	}
	return ""
}

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
