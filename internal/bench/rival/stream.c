/*
 * The kernel's TCP from one thread: blocking calls on one connection after the other, or epoll for many, short ones or such that
 * stay.
 *
 *     stream stream-receive|stream-send|stream-echo|stream-connect|stream-request ADDRESS PORT CPU
 */
#include "child.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>

enum { BULK = 256 << 10, SHORT = 4 << 10, BACKLOG = 4096, EVENTS = 128 };

static char buffer[BULK];

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

static void watch(int epoll, int fd)
{
	struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e))
		fail("epoll_ctl");
}

static void many(int listener)
{
	static struct epoll_event events[EVENTS];
	int epoll = epoll_create1(0);

	if (epoll < 0)
		fail("epoll_create1");
	watch(epoll, listener);
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
				watch(epoll, fd);
			} else if (!echo(fd)) {
				close(fd);
			}
		}
	}
}

int main(int argc, char **argv)
{
	int listener;

	if (argc != 5) {
		fprintf(stderr,
			"usage: stream stream-receive|stream-send|stream-echo|stream-connect|stream-request "
			"ADDRESS PORT CPU\n");
		return 2;
	}
	settle(argv[4]);
	signal(SIGPIPE, SIG_IGN);
	listener = bound(SOCK_STREAM, argv[2], argv[3]);
	if (setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, "cubic", sizeof "cubic" - 1))
		fail("TCP_CONGESTION");
	if (listen(listener, BACKLOG))
		fail("listen");
	ready();
	if (!strcmp(argv[1], "stream-connect") || !strcmp(argv[1], "stream-request"))
		many(listener);
	blocking(listener, argv[1]);
}
