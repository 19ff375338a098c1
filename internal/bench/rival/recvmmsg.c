/*
 * The kernel's sockets at their best from one thread: recvmmsg and, for an echo, sendmmsg of what came.
 *
 *     recvmmsg receive|echo sleep|spin ADDRESS PORT CPU
 *
 * It speaks the lines that child.go describes: "ready", then its counters for each line that it reads.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, LONGEST = 2048, RCVBUF = 8 << 20, AHEAD = -20 };

static _Alignas(64) atomic_ullong received;
static _Alignas(64) atomic_ullong sent;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long long nanoseconds(struct timeval t)
{
	return t.tv_sec * 1000000000LL + t.tv_usec * 1000LL;
}

/* One line of counters for each line read; the end of the input ends the process. */
static void *report(void *unused)
{
	char line[16];

	(void)unused;
	while (fgets(line, sizeof line, stdin)) {
		struct timespec now;
		struct rusage usage;

		clock_gettime(CLOCK_MONOTONIC, &now);
		getrusage(RUSAGE_SELF, &usage);
		printf("%llu %llu %lld %lld %lld\n", atomic_load(&received), atomic_load(&sent),
		       now.tv_sec * 1000000000LL + now.tv_nsec, nanoseconds(usage.ru_utime),
		       nanoseconds(usage.ru_stime));
		fflush(stdout);
	}
	exit(0);
}

static int listening(const char *address, const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port)) };
	int room = RCVBUF, fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0)
		fail("socket");
	if (inet_pton(AF_INET, address, &at.sin_addr) != 1) {
		fprintf(stderr, "%s is no IPv4 address\n", address);
		exit(1);
	}
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
		fail("SO_RCVBUFFORCE");
	if (bind(fd, (struct sockaddr *)&at, sizeof at))
		fail("bind");
	return fd;
}

int main(int argc, char **argv)
{
	static char buffers[BATCH][LONGEST];
	static struct sockaddr_in peers[BATCH];
	static struct iovec vectors[BATCH];
	static struct mmsghdr messages[BATCH];
	pthread_t reporter;
	cpu_set_t cpus;
	int fd, echo, flags;

	if (argc != 6) {
		fprintf(stderr, "usage: recvmmsg receive|echo sleep|spin ADDRESS PORT CPU\n");
		return 2;
	}
	echo = !strcmp(argv[1], "echo");
	flags = strcmp(argv[2], "spin") ? MSG_WAITFORONE : MSG_DONTWAIT;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[5]), &cpus);
	if (sched_setaffinity(0, sizeof cpus, &cpus))
		fail("sched_setaffinity");
	if (setpriority(PRIO_PROCESS, 0, AHEAD))
		fail("setpriority");
	fd = listening(argv[3], argv[4]);
	for (int i = 0; i < BATCH; i++) {
		vectors[i].iov_base = buffers[i];
		messages[i].msg_hdr.msg_name = &peers[i];
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	puts("ready");
	fflush(stdout);
	if (pthread_create(&reporter, NULL, report, NULL))
		fail("pthread_create");

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
		atomic_fetch_add_explicit(&received, n, memory_order_relaxed);
		if (!echo)
			continue;
		for (int i = 0; i < n; i++)
			vectors[i].iov_len = messages[i].msg_len;
		for (int done = 0; done < n;) {
			int m = sendmmsg(fd, messages + done, n - done, 0);

			if (m < 0)
				fail("sendmmsg");
			done += m;
			atomic_fetch_add_explicit(&sent, m, memory_order_relaxed);
		}
	}
}
