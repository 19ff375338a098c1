//go:build packetdrill

// The functions of the table. They are in C for what Go cannot do: set errno, take variable arguments, and keep one lock
// across the two threads of packetdrill, of which the second makes the calls that may wait.
//
// The main thread goes on as soon as it finds the second one asleep, which may be for other reasons than a call that waits.
// So it lets no time pass while the second thread is abroad: from the beginning of a call until that waits or, once it is
// over, until the thread has asked for the time, with which packetdrill marks the end of a call.

#include "interface.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include "_cgo_export.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static pthread_t main_thread;
static atomic_int abroad;
static _Thread_local int counted; // in abroad

// The call that waits, and its result.
static int waiting, finished;
static long result;

static int on_main(void) { return pthread_equal(pthread_self(), main_thread); }

static void enter(void)
{
	if (!on_main() && !counted) {
		counted = 1;
		atomic_fetch_add(&abroad, 1);
	}
	pthread_mutex_lock(&lock);
}

// come_home ends being abroad.
static void come_home(void)
{
	if (counted) {
		counted = 0;
		atomic_fetch_sub(&abroad, 1);
	}
}

// tell wakes the thread whose call has ended, which is abroad again from that moment.
static void tell(void)
{
	if (waiting && kitEnded(&result)) {
		waiting = 0;
		finished = 1;
		atomic_fetch_add(&abroad, 1);
		pthread_cond_broadcast(&ended);
	}
}

// leave ends a call: it waits where the call does, and makes -errno what C wants it to be.
static long leave(long r)
{
	if (r == kitBlocked()) {
		if (on_main()) {
			r = kitOutlast();
		} else {
			waiting = 1;
			come_home();
			while (!finished)
				pthread_cond_wait(&ended, &lock);
			finished = 0;
			counted = 1;
			r = result;
		}
	}
	tell();
	pthread_mutex_unlock(&lock);
	if (r < 0) {
		errno = -r;
		return -1;
	}
	return r;
}

// await_abroad is for the main thread before it lets time pass.
static void await_abroad(void)
{
	while (on_main() && atomic_load(&abroad) > 0)
		sched_yield();
}

static int address(const struct sockaddr *a, socklen_t len, uint32_t *ip, uint16_t *port)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)a;
	if (len < sizeof *in)
		return -EINVAL;
	if (in->sin_family != AF_INET)
		return -EAFNOSUPPORT;
	*ip = ntohl(in->sin_addr.s_addr);
	*port = ntohs(in->sin_port);
	return 0;
}

static void put_peer(int fd, struct sockaddr *a, socklen_t *len)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	uint32_t ip;
	uint16_t port;
	if (!a || !len)
		return;
	kitPeer(fd, &ip, &port);
	in.sin_addr.s_addr = htonl(ip);
	in.sin_port = htons(port);
	memcpy(a, &in, *len < sizeof in ? *len : sizeof in);
	*len = sizeof in;
}

static void shim_free(void *u) { (void)u; }

static int shim_socket(void *u, int domain, int type, int protocol)
{
	enter();
	return leave(kitSocket(domain, type, protocol));
}

static int shim_bind(void *u, int fd, const struct sockaddr *a, socklen_t len)
{
	uint32_t ip;
	uint16_t port;
	enter();
	int r = address(a, len, &ip, &port);
	return leave(r ? r : kitBind(fd, ip, port));
}

static int shim_listen(void *u, int fd, int backlog)
{
	enter();
	return leave(kitListen(fd, backlog));
}

static int shim_accept(void *u, int fd, struct sockaddr *a, socklen_t *len)
{
	enter();
	int r = leave(kitAccept(fd));
	if (r >= 0) {
		pthread_mutex_lock(&lock);
		put_peer(r, a, len);
		pthread_mutex_unlock(&lock);
	}
	return r;
}

static int shim_connect(void *u, int fd, const struct sockaddr *a, socklen_t len)
{
	uint32_t ip;
	uint16_t port;
	enter();
	int r = address(a, len, &ip, &port);
	return leave(r ? r : kitConnect(fd, ip, port));
}

static ssize_t receive(int fd, const struct iovec *v, int n, int flags)
{
	enter();
	return leave(kitRead(fd, (struct iovec *)v, n, flags));
}

static ssize_t transmit(int fd, const struct iovec *v, int n, int flags)
{
	enter();
	return leave(kitWrite(fd, (struct iovec *)v, n, flags));
}

static ssize_t shim_recv(void *u, int fd, void *b, size_t n, int flags)
{
	struct iovec v = {b, n};
	return receive(fd, &v, 1, flags);
}

static ssize_t shim_read(void *u, int fd, void *b, size_t n) { return shim_recv(u, fd, b, n, 0); }

static ssize_t shim_readv(void *u, int fd, const struct iovec *v, int n) { return receive(fd, v, n, 0); }

static ssize_t shim_recvfrom(void *u, int fd, void *b, size_t n, int flags, struct sockaddr *a, socklen_t *len)
{
	if (len)
		*len = 0; // as of a connection
	return shim_recv(u, fd, b, n, flags);
}

static ssize_t shim_recvmsg(void *u, int fd, struct msghdr *m, int flags)
{
	ssize_t r = receive(fd, m->msg_iov, m->msg_iovlen, flags);
	if (r >= 0) {
		m->msg_namelen = 0;
		m->msg_controllen = 0;
		m->msg_flags = 0;
	}
	return r;
}

static ssize_t shim_send(void *u, int fd, const void *b, size_t n, int flags)
{
	struct iovec v = {(void *)b, n};
	return transmit(fd, &v, 1, flags);
}

static ssize_t shim_write(void *u, int fd, const void *b, size_t n) { return shim_send(u, fd, b, n, 0); }

static ssize_t shim_writev(void *u, int fd, const struct iovec *v, int n) { return transmit(fd, v, n, 0); }

static ssize_t shim_sendto(void *u, int fd, const void *b, size_t n, int flags, const struct sockaddr *a, socklen_t len)
{
	return shim_send(u, fd, b, n, flags);
}

static ssize_t shim_sendmsg(void *u, int fd, const struct msghdr *m, int flags)
{
	return transmit(fd, m->msg_iov, m->msg_iovlen, flags);
}

static int shim_fcntl(void *u, int fd, int command, ...)
{
	va_list args;
	va_start(args, command);
	int argument = va_arg(args, int); // garbage where there is none, and then not looked at
	va_end(args);
	enter();
	return leave(kitFcntl(fd, command, argument));
}

static int shim_ioctl(void *u, int fd, unsigned long request, ...)
{
	va_list args;
	va_start(args, request);
	int *value = va_arg(args, int *);
	va_end(args);
	enter();
	return leave(kitIoctl(fd, request, value));
}

static int shim_close(void *u, int fd)
{
	enter();
	return leave(kitClose(fd));
}

static int shim_shutdown(void *u, int fd, int how)
{
	enter();
	return leave(kitShutdown(fd, how));
}

static int shim_getsockopt(void *u, int fd, int level, int name, void *value, socklen_t *len)
{
	enter();
	return leave(kitGetsockopt(fd, level, name, value, len));
}

static int shim_setsockopt(void *u, int fd, int level, int name, const void *value, socklen_t len)
{
	enter();
	return leave(kitSetsockopt(fd, level, name, (void *)value, len));
}

static int shim_poll(void *u, struct pollfd *fds, nfds_t n, int timeout)
{
	enter();
	return leave(kitPoll(fds, n, timeout));
}

static int shim_netdev_send(void *u, const void *packet, size_t n)
{
	enter();
	return leave(kitInject((void *)packet, n));
}

static int shim_netdev_receive(void *u, void *packet, size_t *count, long long *usecs)
{
	size_t room = *count;
	for (int done = 0; !done;) {
		await_abroad();
		pthread_mutex_lock(&lock);
		*count = room;
		done = kitTake(packet, count, usecs);
		tell();
		pthread_mutex_unlock(&lock);
	}
	return 0;
}

static int shim_usleep(void *u, useconds_t usecs)
{
	long long until = 0;
	for (int done = 0; !done;) {
		await_abroad();
		pthread_mutex_lock(&lock);
		if (!until)
			until = kitNow() + usecs;
		done = kitSleep(until);
		tell();
		pthread_mutex_unlock(&lock);
	}
	return 0;
}

static int shim_gettimeofday(void *u, struct timeval *tv, struct timezone *tz)
{
	pthread_mutex_lock(&lock);
	long long now = kitNow();
	tell();
	pthread_mutex_unlock(&lock);
	tv->tv_sec = now / 1000000;
	tv->tv_usec = now % 1000000;
	come_home();
	return 0;
}

static int without(void)
{
	errno = ENOSYS;
	return -1;
}

static int shim_epoll_create(void *u, int size) { return without(); }
static int shim_epoll_ctl(void *u, int epfd, int op, int fd, struct epoll_event *e) { return without(); }
static int shim_epoll_wait(void *u, int epfd, struct epoll_event *e, int n, int timeout) { return without(); }
static int shim_pipe(void *u, int fds[2]) { return without(); }
static int shim_splice(void *u, int a, loff_t *b, int c, loff_t *d, size_t n, unsigned int flags) { return without(); }

// routed answers a getsockopt that was called by its libc name; 1 is that the descriptor is none of ours.
static int routed(int fd, int level, int name, void *value, socklen_t *len)
{
	pthread_mutex_lock(&lock);
	int ours = kitOwns(fd);
	pthread_mutex_unlock(&lock);
	return ours ? shim_getsockopt(NULL, fd, level, name, value, len) : 1;
}

__attribute__((visibility("default"))) void packetdrill_interface_init(const char *flags, struct kit_table *t)
{
	main_thread = pthread_self();
	// preload.c has this variable, where it was loaded.
	int (**route)(int, int, int, void *, socklen_t *) = dlsym(RTLD_DEFAULT, "kit_getsockopt");
	if (route)
		*route = routed;
	kitInit((char *)flags);
	*t = (struct kit_table){
		.free = shim_free, .socket = shim_socket, .bind = shim_bind, .listen = shim_listen, .accept = shim_accept,
		.connect = shim_connect, .read = shim_read, .readv = shim_readv, .recv = shim_recv, .recvfrom = shim_recvfrom,
		.recvmsg = shim_recvmsg, .write = shim_write, .writev = shim_writev, .send = shim_send, .sendto = shim_sendto,
		.sendmsg = shim_sendmsg, .fcntl = shim_fcntl, .ioctl = shim_ioctl, .close = shim_close, .shutdown = shim_shutdown,
		.getsockopt = shim_getsockopt, .setsockopt = shim_setsockopt, .poll = shim_poll,
		.netdev_send = shim_netdev_send, .netdev_receive = shim_netdev_receive, .usleep = shim_usleep,
		.gettimeofday = shim_gettimeofday, .epoll_create = shim_epoll_create, .epoll_ctl = shim_epoll_ctl,
		.epoll_wait = shim_epoll_wait, .pipe = shim_pipe, .splice = shim_splice,
	};
}
