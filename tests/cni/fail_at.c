/* Makes one call of a program fail, or be its last: preloaded into the plugin by faults.rs.
 *
 * FAIL_AT=n counts the calls below, of all threads; the n-th returns -1 with errno FAIL_ERRNO, or with FAIL_KILL set ends the process.
 * FAIL_LOG names a file that gets a line with the name of the call that was hit; without one the program made fewer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int calls;

/* Nonzero if this call is to fail. */
static int hit(const char *name) {
    const char *at = getenv("FAIL_AT"), *log = getenv("FAIL_LOG"), *code = getenv("FAIL_ERRNO");
    if (!at || __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) != atoi(at)) return 0;
    static int (*real_open)(const char *, int, ...);
    static ssize_t (*real_write)(int, const void *, size_t);
    real_open = dlsym(RTLD_NEXT, "open");
    real_write = dlsym(RTLD_NEXT, "write");
    int fd = real_open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0) {
        real_write(fd, name, strlen(name));
        close(fd);
    }
    if (getenv("FAIL_KILL")) kill(getpid(), SIGKILL);
    errno = code ? atoi(code) : EIO;
    return 1;
}

#define REAL(name, type) static __typeof__(type) real; if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, #name)

#define WRAP1(ret, name, t1) \
    ret name(t1 a) { REAL(name, ret (*)(t1)); return hit(#name) ? -1 : real(a); }
#define WRAP2(ret, name, t1, t2) \
    ret name(t1 a, t2 b) { REAL(name, ret (*)(t1, t2)); return hit(#name) ? -1 : real(a, b); }
#define WRAP3(ret, name, t1, t2, t3) \
    ret name(t1 a, t2 b, t3 c) { REAL(name, ret (*)(t1, t2, t3)); return hit(#name) ? -1 : real(a, b, c); }
#define WRAP4(ret, name, t1, t2, t3, t4) \
    ret name(t1 a, t2 b, t3 c, t4 d) { REAL(name, ret (*)(t1, t2, t3, t4)); return hit(#name) ? -1 : real(a, b, c, d); }

WRAP3(int, socket, int, int, int)
WRAP3(int, bind, int, const struct sockaddr *, socklen_t)
WRAP3(int, connect, int, const struct sockaddr *, socklen_t)
WRAP4(ssize_t, send, int, const void *, size_t, int)
WRAP4(ssize_t, recv, int, void *, size_t, int)
WRAP3(ssize_t, read, int, void *, size_t)
WRAP3(ssize_t, write, int, const void *, size_t)
WRAP2(int, setns, int, int)
WRAP2(int, flock, int, int)
WRAP2(int, rename, const char *, const char *)
WRAP1(int, unlink, const char *)
WRAP2(int, mkdir, const char *, mode_t)

ssize_t recvfrom(int a, void *b, size_t c, int d, struct sockaddr *e, socklen_t *f) {
    REAL(recvfrom, ssize_t (*)(int, void *, size_t, int, struct sockaddr *, socklen_t *));
    return hit("recvfrom") ? -1 : real(a, b, c, d, e, f);
}

ssize_t sendto(int a, const void *b, size_t c, int d, const struct sockaddr *e, socklen_t f) {
    REAL(sendto, ssize_t (*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t));
    return hit("sendto") ? -1 : real(a, b, c, d, e, f);
}

int open64(const char *path, int flags, ...) {
    REAL(open64, int (*)(const char *, int, ...));
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return hit("open64") ? -1 : real(path, flags, mode);
}
