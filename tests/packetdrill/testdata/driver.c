// Plays packetdrill's part against the shim: two threads, of which the second makes a call that waits, and packets by hand.
// It prints what is wrong and ends with status 1, or prints ok.
#include "../shim/interface.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#define want(what) do { if (!(what)) { printf("line %d: %s is not so, errno %d\n", __LINE__, #what, errno); exit(1); } } while (0)

static struct kit_table k;

static struct segment {
	struct ip ip;
	struct tcphdr tcp;
	char rest[2000];
} __attribute__((packed)) seg;

static uint32_t add(uint32_t sum, const void *p, size_t n)
{
	const uint8_t *b = p;
	for (size_t i = 0; i < n; i++)
		sum += i % 2 ? b[i] : b[i] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons(~sum);
}

static void arrives(uint32_t seq, uint32_t ack, int flags, size_t n)
{
	memset(&seg, 0, sizeof seg);
	size_t tcp = sizeof seg.tcp + n;
	seg.ip.ip_v = 4;
	seg.ip.ip_hl = 5;
	seg.ip.ip_len = htons(20 + tcp);
	seg.ip.ip_ttl = 64;
	seg.ip.ip_p = IPPROTO_TCP;
	seg.ip.ip_src.s_addr = inet_addr("192.0.2.1");
	seg.ip.ip_dst.s_addr = inet_addr("192.168.0.1");
	seg.ip.ip_sum = fold(add(0, &seg.ip, 20));
	seg.tcp.source = htons(4000);
	seg.tcp.dest = htons(8080);
	seg.tcp.seq = htonl(seq);
	seg.tcp.ack_seq = htonl(ack);
	seg.tcp.doff = 5;
	seg.tcp.th_flags = flags;
	seg.tcp.window = htons(60000);
	seg.tcp.check = fold(add(add(IPPROTO_TCP + tcp, &seg.ip.ip_src, 8), &seg.tcp, tcp));
	want(k.netdev_send(k.userdata, &seg, 20 + tcp) == 0);
}

// leaves takes a segment that has these flags and returns when it left.
static long long leaves(int flags)
{
	size_t n = sizeof seg;
	long long at = 0;
	want(k.netdev_receive(k.userdata, &seg, &n, &at) == 0);
	want(n >= 40);
	want(seg.tcp.th_flags == flags);
	return at;
}

static long long now(void)
{
	struct timeval tv;
	want(k.gettimeofday(k.userdata, &tv, NULL) == 0);
	return tv.tv_sec * 1000000LL + tv.tv_usec;
}

static int listening;
static pid_t thread_id;

// What the second thread does: a call, and the question for the time that marks its end.
static struct { int fd, error; long long at; struct sockaddr_in peer; ssize_t n; } got;
static int done;

static void *accepts(void *u)
{
	socklen_t len = sizeof got.peer;
	__atomic_store_n(&thread_id, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	got.fd = k.accept(k.userdata, listening, (struct sockaddr *)&got.peer, &len);
	got.error = errno;
	got.at = now();
	__atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void *reads(void *u)
{
	static char b[100];
	__atomic_store_n(&thread_id, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	got.n = k.read(k.userdata, got.fd, b, sizeof b);
	got.at = now();
	__atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

// start runs f on a second thread and returns when that sleeps.
static pthread_t start(void *(*f)(void *))
{
	pthread_t t;
	char path[100], line[500], *state;
	done = 0;
	__atomic_store_n(&thread_id, 0, __ATOMIC_SEQ_CST);
	want(pthread_create(&t, NULL, f, NULL) == 0);
	for (;;) {
		sched_yield();
		int id = __atomic_load_n(&thread_id, __ATOMIC_SEQ_CST);
		if (!id)
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%d/stat", id);
		FILE *file = fopen(path, "r");
		want(file && fgets(line, sizeof line, file));
		fclose(file);
		state = strrchr(line, ')');
		want(state);
		if (state[2] == 'S')
			return t;
	}
}

int main(int argc, char **argv)
{
	void *so = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
	if (!so) {
		printf("%s\n", dlerror());
		return 1;
	}
	void (*init)(const char *, struct kit_table *) = dlsym(so, "packetdrill_interface_init");
	want(init);
	init("proc= tcp_timestamps=0", &k);
	long long begin = now();
	want(now() > begin);

	listening = k.socket(k.userdata, AF_INET, SOCK_STREAM, IPPROTO_TCP);
	want(listening > 2);
	want(fcntl(listening, F_GETFD) >= 0); // a real descriptor
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(8080), .sin_addr.s_addr = inet_addr("192.168.0.1")};
	want(k.bind(k.userdata, listening, (struct sockaddr *)&here, sizeof here) == 0);
	want(k.listen(k.userdata, listening, 1) == 0);
	want(k.bind(k.userdata, 99, (struct sockaddr *)&here, sizeof here) == -1 && errno == EBADF);
	want(k.epoll_create(k.userdata, 1) == -1 && errno == ENOSYS);

	// A call that waits ends when a packet ends it, and not a microsecond of a second later.
	pthread_t t = start(accepts);
	arrives(1000, 0, TH_SYN, 0);
	leaves(TH_SYN | TH_ACK);
	uint32_t iss = ntohl(seg.tcp.seq);
	want(ntohl(seg.tcp.ack_seq) == 1001);
	k.usleep(k.userdata, 100000);
	want(!__atomic_load_n(&done, __ATOMIC_SEQ_CST));
	arrives(1001, iss + 1, TH_ACK, 0);
	long long at = now();
	k.usleep(k.userdata, 5000000);
	want(pthread_join(t, NULL) == 0);
	want(got.fd > 2 && got.at - at < 1000);
	want(now() - at >= 5000000);
	want(got.peer.sin_port == htons(4000) && got.peer.sin_addr.s_addr == inet_addr("192.0.2.1"));

	// The same of a read, whose end the taking of a packet waits for.
	t = start(reads);
	arrives(1001, iss + 1, TH_ACK | TH_PUSH, 60);
	at = now();
	leaves(TH_ACK);
	want(ntohl(seg.tcp.ack_seq) == 1061);
	want(pthread_join(t, NULL) == 0);
	want(got.n == 60 && got.at - at < 1000);

	want(k.fcntl(k.userdata, got.fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	want(k.fcntl(k.userdata, got.fd, F_GETFL) == (O_RDWR | O_NONBLOCK));
	char b[10];
	want(k.read(k.userdata, got.fd, b, sizeof b) == -1 && errno == EAGAIN);
	want(k.read(k.userdata, got.fd, NULL, 10) == -1 && errno == EFAULT);
	int queued = -1;
	want(k.ioctl(k.userdata, got.fd, FIONREAD, &queued) == 0 && queued == 0);

	// libc's getsockopt, by way of the preload.
	struct tcp_info info;
	socklen_t len = sizeof info;
	want(getsockopt(got.fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	want(info.tcpi_state == TCP_ESTABLISHED && info.tcpi_snd_cwnd == 10);
	int plain = socket(AF_INET, SOCK_STREAM, 0), type = 0;
	len = sizeof type;
	want(getsockopt(plain, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM);

	// What nobody acknowledges is sent again after its time-out, and in the end there is silence.
	want(k.write(k.userdata, got.fd, "kit", 3) == 3);
	at = leaves(TH_ACK | TH_PUSH);
	long long again = leaves(TH_ACK | TH_PUSH) - at;
	want(again > 200000 && again < 500000);
	arrives(1061, iss + 4, TH_RST | TH_ACK, 0);
	size_t n = sizeof seg;
	want(k.netdev_receive(k.userdata, &seg, &n, &at) == 0 && n == 0);
	want(k.close(k.userdata, got.fd) == 0 && fcntl(got.fd, F_GETFD) == -1);
	k.free(k.userdata);
	puts("ok");
	return 0;
}
