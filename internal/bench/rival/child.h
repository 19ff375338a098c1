/* What the C subjects have in common: the lines that package child describes, and where they run. */
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

enum { AHEAD = -20 };

/* Of datagrams or, with TCP, of bytes. */
static _Alignas(64) atomic_ullong received;
static _Alignas(64) atomic_ullong sent;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void add(atomic_ullong *count, unsigned long long n)
{
	atomic_fetch_add_explicit(count, n, memory_order_relaxed);
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

/* Binds the process to a core and puts it ahead of other work. */
static void settle(const char *cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(atoi(cpu), &cpus);
	if (sched_setaffinity(0, sizeof cpus, &cpus))
		fail("sched_setaffinity");
	if (setpriority(PRIO_PROCESS, 0, AHEAD))
		fail("setpriority");
}

/* Tells that the subject can be asked, and answers for its counters from now on. */
static void ready(void)
{
	pthread_t reporter;

	puts("ready");
	fflush(stdout);
	if (pthread_create(&reporter, NULL, report, NULL))
		fail("pthread_create");
}

/* SPAN is socketsPerAddr of sockets.go, STRIDE its socketStride. */
enum { SPAN = 50000, STRIDE = 7919, SPARE = 100 };

/* Lets this process have so many sockets. */
static void allow(int sockets)
{
	struct rlimit files = { sockets + SPARE, sockets + SPARE };

	if (setrlimit(RLIMIT_NOFILE, &files))
		fail("RLIMIT_NOFILE");
}

/* Returns a socket bound to an address. */
static int bound(int type, const char *address, const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port)) };
	int one = 1, fd = socket(AF_INET, type, 0);

	if (fd < 0)
		fail("socket");
	if (inet_pton(AF_INET, address, &at.sin_addr) != 1) {
		fprintf(stderr, "%s is no IPv4 address\n", address);
		exit(1);
	}
	/* So that connections of a process before this one do not hold the port. */
	if (type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one))
		fail("SO_REUSEADDR");
	if (bind(fd, (struct sockaddr *)&at, sizeof at))
		fail("bind");
	return fd;
}

/* Returns the nth of many sockets for datagrams, at the ports from the given one on and SPAN on each address from the first on. */
static int bound_nth(const char *first, int port, int n)
{
	struct in_addr at;
	char host[INET_ADDRSTRLEN], number[8];

	if (inet_pton(AF_INET, first, &at) != 1)
		fail(first);
	at.s_addr = htonl(ntohl(at.s_addr) + n / SPAN);
	inet_ntop(AF_INET, &at, host, sizeof host);
	snprintf(number, sizeof number, "%d", port + n % SPAN);
	return bound(SOCK_DGRAM, host, number);
}
