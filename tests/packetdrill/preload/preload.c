// packetdrill asks libc, not the stack under test, for TCP_INFO. Loaded with LD_PRELOAD this has the stack answer for its
// own descriptors.
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// kit_getsockopt is set by the shim. It returns 1 for descriptors that are not its own.
int (*kit_getsockopt)(int fd, int level, int name, void *value, socklen_t *len);

int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	if (kit_getsockopt) {
		int r = kit_getsockopt(fd, level, name, value, len);
		if (r != 1)
			return r;
	}
	return syscall(SYS_getsockopt, fd, level, name, value, len);
}
