/*
 * The kernel's TCP from one thread: blocking calls on one connection after the other, or epoll for many, short ones or such that
 * stay.
 *
 * What many connections send or read at a time is up to ROOM bytes.
 *
 *     stream stream-receive|stream-send|stream-echo|stream-connect|stream-request|streams-receive|streams-send
 *         ADDRESS PORT CPU ROOM
 */
#include "child.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>

enum { BULK = 256 << 10, SHORT = 4 << 10, BACKLOG = 4096, EVENTS = 128 };

static char buffer[BULK];
static size_t room;
static int epoll;

/* Sends back what comes; false at the end of the connection. */
static int echo(int fd)
{
	ssize_t n = read(fd, buffer, SHORT), m;

	if (n <= 0)
		return 0;
	add(&received, n);
	m = write(fd, buffer, n);
	if (m > 0)
		add(&sent, m);
	return m == n;
}

static void blocking(int listener, const char *role)
{
	for (;;) {
		int one = 1, fd = accept(listener, NULL, NULL);
		ssize_t n;

		if (fd < 0)
			fail("accept");
		if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
			fail("TCP_NODELAY");
		if (!strcmp(role, "stream-receive"))
			while ((n = read(fd, buffer, BULK)) > 0)
				add(&received, n);
		else if (!strcmp(role, "stream-send"))
			while ((n = write(fd, buffer, BULK)) > 0)
				add(&sent, n);
		else
			while (echo(fd))
				;
		close(fd);
	}
}

static void watch(int op, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	if (epoll_ctl(epoll, op, fd, &e))
		fail("epoll_ctl");
}

/* Reads and throws away; false at the end of the connection. */
static int take(int fd)
{
	ssize_t n = read(fd, buffer, room);

	if (n > 0)
		add(&received, n);
	return n > 0;
}

/* Begins to send once a byte came: the first time that there is something. */
static int begin(int fd)
{
	if (read(fd, buffer, 1) != 1)
		return 0;
	watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
	return 1;
}

static int give(int fd)
{
	ssize_t n = write(fd, buffer, room);

	if (n > 0)
		add(&sent, n);
	return n > 0 || errno == EAGAIN;
}

/* Does for many connections what there is to be done at each one's turn. */
static void many(int listener, int (*readable)(int))
{
	static struct epoll_event events[EVENTS];

	epoll = epoll_create1(0);
	if (epoll < 0)
		fail("epoll_create1");
	watch(EPOLL_CTL_ADD, listener, EPOLLIN);
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);

		if (n < 0)
			fail("epoll_wait");
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == listener) {
				fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
				if (fd < 0)
					fail("accept4");
				watch(EPOLL_CTL_ADD, fd, EPOLLIN);
			} else if (!(events[i].events & EPOLLIN ? readable : give)(fd)) {
				close(fd);
			}
		}
	}
}

int main(int argc, char **argv)
{
	int listener;

	if (argc != 6) {
		fprintf(stderr,
			"usage: stream stream-receive|stream-send|stream-echo|stream-connect|stream-request|"
			"streams-receive|streams-send ADDRESS PORT CPU ROOM\n");
		return 2;
	}
	settle(argv[4]);
	signal(SIGPIPE, SIG_IGN);
	listener = bound(SOCK_STREAM, argv[2], argv[3]);
	if (setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, "cubic", sizeof "cubic" - 1))
		fail("TCP_CONGESTION");
	if (listen(listener, BACKLOG))
		fail("listen");
	room = atoi(argv[5]);
	if (room > BULK) {
		fprintf(stderr, "a ROOM of %zu is more than %d\n", room, BULK);
		return 2;
	}
	ready();
	if (!strcmp(argv[1], "stream-connect") || !strcmp(argv[1], "stream-request"))
		many(listener, echo);
	if (!strcmp(argv[1], "streams-receive"))
		many(listener, take);
	if (!strcmp(argv[1], "streams-send"))
		many(listener, begin);
	blocking(listener, argv[1]);
}
