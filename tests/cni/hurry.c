/* A program's time runs HURRY times faster, preloaded: what it waits for 20 seconds at the most is over in a moment.
 *
 * clock_gettime(2) tells later times, and futex(2), which threads sleep in, is given the true ones. Other sleeps take as long as they do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

static int (*real_clock)(clockid_t, struct timespec *);
static long (*real_syscall)(long, ...);
static int64_t start, factor = 1;

static int64_t true_time(void) {
    struct timespec now;
    real_clock(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    const char *text = getenv("HURRY");
    if (text) factor = atoi(text);
    start = true_time();
}

static struct timespec spec(int64_t time) {
    return (struct timespec){.tv_sec = time / SECOND, .tv_nsec = time % SECOND};
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (!real_clock) begin();
    if (clock != CLOCK_MONOTONIC) return real_clock(clock, out);
    *out = spec(start + (true_time() - start) * factor);
    return 0;
}

long syscall(long number, ...) {
    va_list words;
    va_start(words, number);
    long a = va_arg(words, long), b = va_arg(words, long), c = va_arg(words, long);
    long d = va_arg(words, long), e = va_arg(words, long), f = va_arg(words, long);
    va_end(words);
    if (!real_syscall) begin();
    struct timespec until;
    if (number == SYS_futex && d && (b & 127) == 9 /* FUTEX_WAIT_BITSET: an absolute time */) {
        const struct timespec *given = (const struct timespec *)d;
        until = spec(start + (given->tv_sec * SECOND + given->tv_nsec - start) / factor);
        d = (long)&until;
    }
    return real_syscall(number, a, b, c, d, e, f);
}
