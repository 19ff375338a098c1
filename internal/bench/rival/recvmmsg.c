/*
 * The kernel's sockets at their best from one thread: recvmmsg and, for an echo, sendmmsg of what came.
 *
 *     recvmmsg receive|echo sleep|spin ADDRESS PORT CPU
 */
#include "child.h"

enum { BATCH = 64, LONGEST = 2048, RCVBUF = 8 << 20 };

int main(int argc, char **argv)
{
	static char buffers[BATCH][LONGEST];
	static struct sockaddr_in peers[BATCH];
	static struct iovec vectors[BATCH];
	static struct mmsghdr messages[BATCH];
	int fd, echo, flags, room = RCVBUF;

	if (argc != 6) {
		fprintf(stderr, "usage: recvmmsg receive|echo sleep|spin ADDRESS PORT CPU\n");
		return 2;
	}
	echo = !strcmp(argv[1], "echo");
	flags = strcmp(argv[2], "spin") ? MSG_WAITFORONE : MSG_DONTWAIT;
	settle(argv[5]);
	fd = bound(SOCK_DGRAM, argv[3], argv[4]);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
		fail("SO_RCVBUFFORCE");
	for (int i = 0; i < BATCH; i++) {
		vectors[i].iov_base = buffers[i];
		messages[i].msg_hdr.msg_name = &peers[i];
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	ready();

	for (;;) {
		int n;

		for (int i = 0; i < BATCH; i++) {
			vectors[i].iov_len = LONGEST;
			messages[i].msg_hdr.msg_namelen = sizeof peers[i];
		}
		n = recvmmsg(fd, messages, BATCH, flags, NULL);
		if (n < 0 && errno == EAGAIN)
			continue;
		if (n < 0)
			fail("recvmmsg");
		add(&received, n);
		if (!echo)
			continue;
		for (int i = 0; i < n; i++)
			vectors[i].iov_len = messages[i].msg_len;
		for (int done = 0; done < n;) {
			int m = sendmmsg(fd, messages + done, n - done, 0);

			if (m < 0)
				fail("sendmmsg");
			done += m;
			add(&sent, m);
		}
	}
}
