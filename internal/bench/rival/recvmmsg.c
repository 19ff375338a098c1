/*
 * The kernel's sockets at their best from one thread: recvmmsg and, for an echo, sendmmsg of what came.
 *
 * With many sockets, at the ports from PORT on and SPAN each of the addresses from ADDRESS on, epoll says which have something.
 *
 *     recvmmsg receive|echo|sockets|sockets-echo sleep|spin ADDRESS PORT CPU SOCKETS
 */
#include "child.h"

#include <sys/epoll.h>

enum { BATCH = 64, EVENTS = 64, LONGEST = 2048, RCVBUF = 8 << 20 };

static char buffers[BATCH][LONGEST];
static struct sockaddr_in peers[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];

/* Makes room for a batch. */
static void empty(void)
{
	for (int i = 0; i < BATCH; i++) {
		vectors[i].iov_len = LONGEST;
		messages[i].msg_hdr.msg_namelen = sizeof peers[i];
	}
}

/* Sends the first n messages back. */
static void answer(int fd, int n)
{
	for (int i = 0; i < n; i++)
		vectors[i].iov_len = messages[i].msg_len;
	for (int done = 0; done < n;) {
		int m = sendmmsg(fd, messages + done, n - done, 0);

		if (m < 0)
			fail("sendmmsg");
		done += m;
		add(&sent, m);
	}
	empty();
}

static int epoll_of_bound(const char *address, int port, int sockets)
{
	int epoll = epoll_create1(0);

	if (epoll < 0)
		fail("epoll_create1");
	allow(sockets);
	for (int i = 0; i < sockets; i++) {
		struct epoll_event e = { .events = EPOLLIN };

		e.data.fd = bound_nth(address, port, i);
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, e.data.fd, &e))
			fail("epoll_ctl");
	}
	return epoll;
}

static void many(int epoll, int echo)
{
	static struct epoll_event events[EVENTS];

	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);

		if (n < 0)
			fail("epoll_wait");
		for (int i = 0; i < n; i++) {
			int got = recvmmsg(events[i].data.fd, messages, BATCH, MSG_DONTWAIT, NULL);

			if (got < 0 && errno != EAGAIN)
				fail("recvmmsg");
			if (got <= 0)
				continue;
			add(&received, got);
			if (echo)
				answer(events[i].data.fd, got);
		}
	}
}

int main(int argc, char **argv)
{
	int fd, echo, flags, sockets, room = RCVBUF;

	if (argc != 7) {
		fprintf(stderr, "usage: recvmmsg receive|echo|sockets|sockets-echo sleep|spin ADDRESS PORT CPU SOCKETS\n");
		return 2;
	}
	echo = !strcmp(argv[1], "echo") || !strcmp(argv[1], "sockets-echo");
	flags = strcmp(argv[2], "spin") ? MSG_WAITFORONE : MSG_DONTWAIT;
	settle(argv[5]);
	for (int i = 0; i < BATCH; i++) {
		vectors[i].iov_base = buffers[i];
		messages[i].msg_hdr.msg_name = &peers[i];
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	empty();
	sockets = atoi(argv[6]);
	if (sockets > 1) {
		fd = epoll_of_bound(argv[3], atoi(argv[4]), sockets);
		ready();
		many(fd, echo);
	}
	fd = bound(SOCK_DGRAM, argv[3], argv[4]);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
		fail("SO_RCVBUFFORCE");
	ready();

	for (;;) {
		int n = recvmmsg(fd, messages, BATCH, flags, NULL);

		if (n < 0 && errno == EAGAIN)
			continue;
		if (n < 0)
			fail("recvmmsg");
		add(&received, n);
		if (echo)
			answer(fd, n);
	}
}
