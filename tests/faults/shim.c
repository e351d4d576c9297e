/* A disk at fault, from inside a process: `LD_PRELOAD` puts it between a program and the C library.

Every change of a file below `prefix` is an event: creating, writing, syncing, renaming, removing, folders, locks. From
Python, Rust, Arrow and SQLite alike they come through here. Armed, the process is killed at the n-th event (a write is
done by half then), or events of some kinds fail with an error number. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16, FOLDER = 32, LOCK = 64 };

/* The wall clock jumps forward and back by so many seconds at each n-th look at it; others stay. */
static long jump, looks_each, looks;

static char prefix[PATH_MAX];
static size_t length;
static int armed, kinds, number;  /* number: of the error; 0 kills */
static long at, last, count;

void faults_arm(const char *below, int of_kinds, long first, long until, int error) {
    strncpy(prefix, below, sizeof prefix - 1);
    length = strlen(prefix);
    kinds = of_kinds, at = first, last = until, number = error, count = 0;
    armed = 1;
}

long faults_count(void) { return count; }
void faults_disarm(void) { armed = 0; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int below(const char *path) {
    if (path == NULL) return 0;
    if (path[0] == '/') return strncmp(path, prefix, length) == 0;
    char here[PATH_MAX];
    return getcwd(here, sizeof here) != NULL && strncmp(here, prefix, length) == 0;
}

static int below_at(int folder, const char *path) {
    if (path != NULL && (path[0] == '/' || folder == AT_FDCWD)) return below(path);
    char link[64], place[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, place, sizeof place - 1);
    return size > 0 && (place[size] = 0, strncmp(place, prefix, length) == 0);
}

static int is_ours(int descriptor) {
    struct stat about;
    int before = errno, ours = fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode) && below_at(descriptor, NULL);
    errno = before;
    return ours;
}

/* 0: go on; 1: fail with errno; 2: die now. */
static int event(int kind) {
    if (!(kinds & kind)) return 0;
    long now = __sync_add_and_fetch(&count, 1);
    if (now < at || now > last) return 0;
    if (number == 0) return 2;
    errno = number;
    return 1;
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

#define AROUND(kind, ours, call)                \
    do {                                        \
        if (armed && (ours)) {                  \
            int what = event(kind);             \
            if (what == 1) return -1;           \
            if (what == 2) {                    \
                if (at % 2) (void)(call);       \
                die();                          \
            }                                   \
        }                                       \
        return call;                            \
    } while (0)

#define HALF(call_half, call)                                        \
    do {                                                             \
        if (armed && is_ours(descriptor)) {                          \
            int what = event(WRITE);                                 \
            if (what == 1) return -1;                                \
            if (what == 2) { size = size / 2; (void)!(call_half); die(); } \
        }                                                            \
        return call;                                                 \
    } while (0)

static int creates(int flags) { return flags & (O_CREAT | O_TRUNC); }
static mode_t mode_of(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; }

#define OPEN(name)                                                                            \
    int name(const char *path, int flags, ...) {                                              \
        va_list more; va_start(more, flags); mode_t mode = mode_of(flags, more); va_end(more); \
        AROUND(CREATE, creates(flags) && below(path), REAL(name)(path, flags, mode));         \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                           \
    int name(int folder, const char *path, int flags, ...) {                                   \
        va_list more; va_start(more, flags); mode_t mode = mode_of(flags, more); va_end(more);  \
        AROUND(CREATE, creates(flags) && below_at(folder, path), REAL(name)(folder, path, flags, mode)); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int descriptor, const void *bytes, size_t size) {
    HALF(REAL(write)(descriptor, bytes, size), REAL(write)(descriptor, bytes, size));
}
ssize_t pwrite(int descriptor, const void *bytes, size_t size, off_t place) {
    HALF(REAL(pwrite)(descriptor, bytes, size, place), REAL(pwrite)(descriptor, bytes, size, place));
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t size, off64_t place) {
    HALF(REAL(pwrite64)(descriptor, bytes, size, place), REAL(pwrite64)(descriptor, bytes, size, place));
}
ssize_t writev(int descriptor, const struct iovec *parts, int number_of_parts) {
    size_t size = number_of_parts;
    HALF(REAL(writev)(descriptor, parts, (int)size), REAL(writev)(descriptor, parts, number_of_parts));
}
size_t fwrite(const void *bytes, size_t size, size_t items, FILE *stream) {
    if (armed && is_ours(fileno(stream))) {
        int what = event(WRITE);
        if (what == 1) return 0;
        if (what == 2) { REAL(fwrite)(bytes, size, items / 2, stream); fflush(stream); die(); }
    }
    return REAL(fwrite)(bytes, size, items, stream);
}
int ftruncate(int descriptor, off_t size) { AROUND(WRITE, is_ours(descriptor), REAL(ftruncate)(descriptor, size)); }
int ftruncate64(int descriptor, off64_t size) { AROUND(WRITE, is_ours(descriptor), REAL(ftruncate64)(descriptor, size)); }
int fsync(int descriptor) { AROUND(SYNC, is_ours(descriptor) || below_at(descriptor, NULL), REAL(fsync)(descriptor)); }
int fdatasync(int descriptor) { AROUND(SYNC, is_ours(descriptor), REAL(fdatasync)(descriptor)); }
int rename(const char *old, const char *new) { AROUND(RENAME, below(new), REAL(rename)(old, new)); }
int renameat(int f, const char *old, int g, const char *new) {
    AROUND(RENAME, below_at(g, new), REAL(renameat)(f, old, g, new));
}
int unlink(const char *path) { AROUND(REMOVE, below(path), REAL(unlink)(path)); }
int unlinkat(int folder, const char *path, int flags) {
    AROUND(REMOVE, below_at(folder, path), REAL(unlinkat)(folder, path, flags));
}
int rmdir(const char *path) { AROUND(REMOVE, below(path), REAL(rmdir)(path)); }
int mkdir(const char *path, mode_t mode) { AROUND(FOLDER, below(path), REAL(mkdir)(path, mode)); }
int mkdirat(int folder, const char *path, mode_t mode) {
    AROUND(FOLDER, below_at(folder, path), REAL(mkdirat)(folder, path, mode));
}
int flock(int descriptor, int operation) { AROUND(LOCK, is_ours(descriptor) || below_at(descriptor, NULL), REAL(flock)(descriptor, operation)); }

static int locks(int command) { return command == F_SETLK || command == F_SETLKW; }
int fcntl(int descriptor, int command, ...) {
    va_list more; va_start(more, command); void *argument = va_arg(more, void *); va_end(more);
    AROUND(LOCK, locks(command) && is_ours(descriptor), REAL(fcntl)(descriptor, command, argument));
}
int fcntl64(int descriptor, int command, ...) {
    va_list more; va_start(more, command); void *argument = va_arg(more, void *); va_end(more);
    AROUND(LOCK, locks(command) && is_ours(descriptor), REAL(fcntl64)(descriptor, command, argument));
}

void faults_clock(long seconds, long each) { jump = seconds, looks_each = each, looks = 0; }
long faults_looks(void) { return looks; }

static long jumped(void) {
    if (!looks_each) return 0;
    long now = __sync_add_and_fetch(&looks, 1) / looks_each;
    return now == 0 ? 0 : now % 2 ? jump : -jump;
}
int clock_gettime(clockid_t clock, struct timespec *found) {
    int code = REAL(clock_gettime)(clock, found);
    if (code == 0 && clock == CLOCK_REALTIME) found->tv_sec += jumped();
    return code;
}
int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    int code = REAL(gettimeofday)(found, zone);
    if (code == 0) found->tv_sec += jumped();
    return code;
}
time_t time(time_t *found) {
    time_t now = REAL(time)(NULL) + jumped();
    if (found != NULL) *found = now;
    return now;
}
