/*
 * The kernel's sockets at their best at sending, from one thread: sendmmsg on connected sockets, of datagrams or of messages that
 * the kernel cuts into datagrams. The sockets, many of which are where recvmmsg has them, have their turns, each with a batch.
 *
 *     sendmmsg plain|gso ADDRESS PORT PEER PEER-PORT PAYLOAD CPU SOCKETS BATCH
 */
#include "child.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* SEGMENTS is what kernels take in one message, whichever they are (UDP_MAX_SEGMENTS), LONGEST what UDP does (RFC 768). */
enum { MOST = 64, SEGMENTS = 64, LONGEST = 65507, SNDBUF = 8 << 20 };

/* Makes a socket what it has to be to send to the peer. */
static void aim(int fd, const struct sockaddr_in *peer, int cut)
{
	int room = SNDBUF;

	if (connect(fd, (const struct sockaddr *)peer, sizeof *peer))
		fail("connect");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room))
		fail("SO_SNDBUFFORCE");
	if (cut && setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &cut, sizeof cut))
		fail("UDP_SEGMENT (needs Linux 4.18)");
}

int main(int argc, char **argv)
{
	static char bytes[LONGEST];
	static struct iovec vectors[MOST];
	static struct mmsghdr messages[MOST];
	struct sockaddr_in peer = { .sin_family = AF_INET };
	int *fds, payload, sockets, batch, segments = 1, gso;

	if (argc != 10) {
		fprintf(stderr, "usage: sendmmsg plain|gso ADDRESS PORT PEER PEER-PORT PAYLOAD CPU SOCKETS BATCH\n");
		return 2;
	}
	payload = atoi(argv[6]);
	settle(argv[7]);
	peer.sin_port = htons((unsigned short)atoi(argv[5]));
	if (inet_pton(AF_INET, argv[4], &peer.sin_addr) != 1) {
		fprintf(stderr, "%s is no IPv4 address\n", argv[4]);
		return 2;
	}
	gso = !strcmp(argv[1], "gso");
	if (gso)
		segments = LONGEST / payload < SEGMENTS ? LONGEST / payload : SEGMENTS;
	sockets = atoi(argv[8]);
	batch = atoi(argv[9]);
	fds = calloc(sockets, sizeof *fds);
	if (!fds || batch > MOST)
		fail("SOCKETS or BATCH");
	allow(sockets);
	for (int i = 0; i < sockets; i++) {
		fds[i] = sockets > 1 ? bound_nth(argv[2], atoi(argv[3]), i) : bound(SOCK_DGRAM, argv[2], argv[3]);
		aim(fds[i], &peer, gso ? payload : 0);
	}
	for (int i = 0; i < MOST; i++) {
		vectors[i].iov_base = bytes;
		vectors[i].iov_len = (size_t)payload * segments;
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	/* What a socket's first turn costs more is over before anything is measured. */
	for (int i = 0; i < sockets; i++)
		if (sendmmsg(fds[i], messages, batch, 0) < 0)
			fail("sendmmsg");
	ready();

	for (int i = 0;; i = (i + STRIDE) % sockets) {
		int n = sendmmsg(fds[i], messages, batch, 0);

		if (n < 0)
			fail("sendmmsg");
		add(&sent, (unsigned long long)n * segments);
	}
}
