/* Tells what a program asks of the kernel: preloaded by witness.rs, which reads the lines that it appends to the file WITNESS.
 *
 *   netlink 4026531840        a netlink socket was opened, in the network namespace with that inode
 *   child execve              a program or a process was started, and by which call
 *   wait /run/store.json      flock(2) sleeps until it has the lock of that file
 *   frame 64100 66 1398       a super-frame was read of a TAP: bytes without the virtio_net_hdr, of headers, of a segment
 *   send 64768 1472           a UDP send that the kernel cuts: bytes, of a datagram
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <sched.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOL_UDP_ 17
#define UDP_SEGMENT_ 103
/* As Linux has it; its header needs others. */
struct vnet { uint8_t flags, gso_type; uint16_t hdr_len, gso_size, csum_start, csum_offset; };

#define REAL(name, type) static __typeof__(type) real; if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, name)

static void tell(const char *format, ...) {
    REAL("write", ssize_t (*)(int, const void *, size_t));
    const char *path = getenv("WITNESS");
    if (!path) return;
    char line[512];
    va_list words;
    va_start(words, format);
    int length = vsnprintf(line, sizeof line - 1, format, words);
    va_end(words);
    if (length < 0) return;
    if (length > (int)sizeof line - 2) length = sizeof line - 2;
    line[length++] = '\n';
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    /* One write a line: lines of several threads do not mix. */
    if (real(fd, line, length) != length) abort();
    close(fd);
}

int socket(int domain, int type, int protocol) {
    REAL("socket", int (*)(int, int, int));
    struct stat space;
    if (domain == AF_NETLINK && stat("/proc/thread-self/ns/net", &space) == 0)
        tell("netlink %llu", (unsigned long long)space.st_ino);
    return real(domain, type, protocol);
}

int flock(int fd, int operation) {
    REAL("flock", int (*)(int, int));
    if (!(operation & LOCK_NB) && !(operation & LOCK_UN)) {
        char link[64], path[256];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length < 0 ? 0 : length] = 0;
        tell("wait %s", path);
    }
    return real(fd, operation);
}

pid_t fork(void) {
    REAL("fork", pid_t (*)(void));
    tell("child fork");
    return real();
}

int execve(const char *path, char *const *arguments, char *const *environment) {
    REAL("execve", int (*)(const char *, char *const *, char *const *));
    tell("child execve");
    return real(path, arguments, environment);
}

int execvp(const char *path, char *const *arguments) {
    REAL("execvp", int (*)(const char *, char *const *));
    tell("child execvp");
    return real(path, arguments);
}

#define SPAWN(name)                                                                                                        \
    int name(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes, \
             char *const *arguments, char *const *environment) {                                                           \
        REAL(#name, int (*)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,          \
                            char *const *, char *const *));                                                                \
        tell("child " #name);                                                                                              \
        return real(pid, path, actions, attributes, arguments, environment);                                               \
    }
SPAWN(posix_spawn)
SPAWN(posix_spawnp)

/* Which descriptors are TAPs, looked up once: 0 not yet, 1 no, 2 yes. */
static uint8_t taps[1024];

static int is_tap(int fd) {
    if (fd < 0 || fd >= (int)sizeof taps) return 0;
    if (!taps[fd]) {
        struct ifreq name;
        taps[fd] = ioctl(fd, TUNGETIFF, &name) == 0 ? 2 : 1;
    }
    return taps[fd] == 2;
}

int close(int fd) {
    REAL("close", int (*)(int));
    if (fd >= 0 && fd < (int)sizeof taps) taps[fd] = 0;
    return real(fd);
}

ssize_t read(int fd, void *buffer, size_t room) {
    REAL("read", ssize_t (*)(int, void *, size_t));
    ssize_t length = real(fd, buffer, room);
    int header = 0;
    if (length > (ssize_t)sizeof(struct vnet) && is_tap(fd) && ioctl(fd, TUNGETVNETHDRSZ, &header) == 0) {
        struct vnet *vnet = buffer;
        if (vnet->gso_size) tell("frame %zd %u %u", length - header, vnet->hdr_len, vnet->gso_size);
    }
    return length;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL("sendmsg", ssize_t (*)(int, const struct msghdr *, int));
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR((struct msghdr *)message, control)) {
        if (control->cmsg_level != SOL_UDP_ || control->cmsg_type != UDP_SEGMENT_) continue;
        size_t bytes = 0;
        uint16_t segment;
        for (size_t part = 0; part < message->msg_iovlen; part++) bytes += message->msg_iov[part].iov_len;
        memcpy(&segment, CMSG_DATA(control), sizeof segment);
        tell("send %zu %u", bytes, segment);
    }
    return real(fd, message, flags);
}
