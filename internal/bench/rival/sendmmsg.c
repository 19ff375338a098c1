/*
 * The kernel's sockets at their best at sending, from one thread: sendmmsg on a connected socket, of datagrams or of messages that
 * the kernel cuts into datagrams.
 *
 *     sendmmsg plain|gso ADDRESS PORT PEER PEER-PORT PAYLOAD CPU
 */
#include "child.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* SEGMENTS is what kernels take in one message, whichever they are (UDP_MAX_SEGMENTS), LONGEST what UDP does (RFC 768). */
enum { BATCH = 64, SEGMENTS = 64, LONGEST = 65507, SNDBUF = 8 << 20 };

int main(int argc, char **argv)
{
	static char bytes[LONGEST];
	static struct iovec vectors[BATCH];
	static struct mmsghdr messages[BATCH];
	struct sockaddr_in peer = { .sin_family = AF_INET };
	int fd, payload, segments = 1, room = SNDBUF;

	if (argc != 8) {
		fprintf(stderr, "usage: sendmmsg plain|gso ADDRESS PORT PEER PEER-PORT PAYLOAD CPU\n");
		return 2;
	}
	payload = atoi(argv[6]);
	settle(argv[7]);
	fd = bound(SOCK_DGRAM, argv[2], argv[3]);
	peer.sin_port = htons((unsigned short)atoi(argv[5]));
	if (inet_pton(AF_INET, argv[4], &peer.sin_addr) != 1) {
		fprintf(stderr, "%s is no IPv4 address\n", argv[4]);
		return 2;
	}
	if (connect(fd, (struct sockaddr *)&peer, sizeof peer))
		fail("connect");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room))
		fail("SO_SNDBUFFORCE");
	if (!strcmp(argv[1], "gso")) {
		segments = LONGEST / payload < SEGMENTS ? LONGEST / payload : SEGMENTS;
		if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &payload, sizeof payload))
			fail("UDP_SEGMENT (needs Linux 4.18)");
	}
	for (int i = 0; i < BATCH; i++) {
		vectors[i].iov_base = bytes;
		vectors[i].iov_len = (size_t)payload * segments;
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	ready();

	for (;;) {
		int n = sendmmsg(fd, messages, BATCH, 0);

		if (n < 0)
			fail("sendmmsg");
		add(&sent, (unsigned long long)n * segments);
	}
}
