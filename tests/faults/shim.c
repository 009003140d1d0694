/* Counts the calls that change a folder, and fails, cuts short, corrupts or kills at the nth.

   Loaded with LD_PRELOAD and asleep until fault_arm() is called, so one process can import
   everything once, fork for each fault, and arm the child alone. Calls on paths outside the folder
   are neither counted nor touched. What happened is told through memory that parent and child
   share. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, FSYNC = 2, RENAME = 4, TRUNCATE = 8, MKDIR = 16, CREATE = 32, UNLINK = 64, READ = 128 };
enum { FAIL = 1, FAIL_ON = 2, SHORT = 3, SHORT_FULL = 4, KILL = 5, TEAR = 6, KILL_AFTER = 7, FLIP = 8, BAD_PAGE = 9 };
enum { PAGE = 4096 };

struct report {
    _Atomic long counted; /* calls of the kinds asked for */
    _Atomic int fired;    /* how many of them were failed */
    int kind;             /* of the first that was */
    char path[256];       /* and its path */
};

static char folder[PATH_MAX];
static size_t folder_length;
static int kinds, action, number;
static long nth;
static struct report *report;
static _Atomic int armed;

void fault_arm(const char *where, int which, long n, int what, int error, struct report *said) {
    strncpy(folder, where, sizeof folder - 1);
    folder_length = strlen(folder);
    kinds = which, nth = n, action = what, number = error, report = said;
    atomic_store(&armed, 1);
}

void fault_disarm(void) { atomic_store(&armed, 0); }

static int inside(const char *path) {
    return strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static int full_path(int at, const char *path, char *out, size_t size) {
    char link[64];
    ssize_t length = 0;
    if (path == NULL) return 0;
    if (path[0] == '/') return snprintf(out, size, "%s", path) > 0;
    if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    length = readlink(link, out, size - 2);
    if (length <= 0) return 0;
    out[length] = '/';
    snprintf(out + length + 1, size - length - 1, "%s", path);
    return 1;
}

static int fd_path(int fd, char *out, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, size - 1);
    if (length <= 0) return 0;
    out[length] = 0;
    return 1;
}

/* What to do with this call: 0 lets it through. */
static int judge(int kind, const char *path) {
    if (!inside(path) || !(kinds & kind)) return 0;
    long now = atomic_fetch_add(&report->counted, 1) + 1;
    int on = action == FAIL_ON || action == SHORT_FULL;
    if (now < nth || (now > nth && !on)) return 0;
    if (atomic_fetch_add(&report->fired, 1) == 0) {
        report->kind = kind;
        snprintf(report->path, sizeof report->path, "%s", path);
    }
    if (action == KILL) kill(getpid(), SIGKILL);
    if (action == SHORT_FULL && now > nth) return FAIL;
    return action == FAIL_ON ? FAIL : action;
}

static int judge_at(int kind, int at, const char *path) {
    char buffer[PATH_MAX];
    int saved = errno, verdict = 0;
    if (atomic_load(&armed) && full_path(at, path, buffer, sizeof buffer)) verdict = judge(kind, buffer);
    errno = saved;
    return verdict;
}

static int judge_fd(int kind, int fd) {
    char buffer[PATH_MAX];
    int saved = errno, verdict = 0;
    if (atomic_load(&armed) && fd_path(fd, buffer, sizeof buffer)) verdict = judge(kind, buffer);
    errno = saved;
    return verdict;
}

static void die(void) { kill(getpid(), SIGKILL); }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A call that has no length: it fails, or it is done and the process dies. */
#define PLAIN(verdict, call) \
    do { \
        int v = (verdict); \
        if (v == FAIL) { errno = number; return -1; } \
        __typeof__(call) result = (call); \
        if (v == KILL_AFTER || v == TEAR) die(); \
        return result; \
    } while (0)

/* A write: it may also be cut short, torn by a kill, or have one bit flipped on its way. */
#define WRITTEN(verdict, buffer, size, call) \
    do { \
        int v = (verdict); \
        char *flipped = NULL; \
        if (v == FAIL) { errno = number; return -1; } \
        if ((v == SHORT || v == SHORT_FULL || v == TEAR) && size > 1) size /= 2; \
        if (v == FLIP && size > 0 && (flipped = malloc(size))) { \
            memcpy(flipped, buffer, size); \
            flipped[size / 2] ^= 16; \
            buffer = flipped; \
        } \
        ssize_t result = (call); \
        int saved = errno; \
        free(flipped); \
        errno = saved; \
        if (v == TEAR || v == KILL_AFTER) die(); \
        return result; \
    } while (0)

ssize_t write(int fd, const void *buffer, size_t size) {
    REAL(write);
    WRITTEN(judge_fd(WRITE, fd), buffer, size, real(fd, buffer, size));
}

ssize_t pwrite(int fd, const void *buffer, size_t size, off_t at) {
    REAL(pwrite);
    WRITTEN(judge_fd(WRITE, fd), buffer, size, real(fd, buffer, size, at));
}

ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t at) {
    REAL(pwrite64);
    WRITTEN(judge_fd(WRITE, fd), buffer, size, real(fd, buffer, size, at));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    PLAIN(judge_fd(WRITE, fd), real(fd, parts, count));
}

/* What stdio writes itself goes past this library, so its calls are failed instead. */
size_t fwrite(const void *buffer, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    int v = judge_fd(WRITE, fileno(file));
    if (v == FAIL) { errno = number; return 0; }
    if (v == SHORT || v == SHORT_FULL) { errno = ENOSPC; return real(buffer, size, count / 2, file); }
    if (v == FLIP && size * count > 0) {
        char *flipped = malloc(size * count);
        memcpy(flipped, buffer, size * count);
        flipped[size * count / 2] ^= 16;
        size_t done = real(flipped, size, count, file);
        free(flipped);
        return done;
    }
    size_t done = real(buffer, size, v == TEAR ? count / 2 : count, file);
    if (v == TEAR || v == KILL_AFTER) { fflush(file); die(); }
    return done;
}

ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    static ssize_t (*real)(int, int, off_t *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "sendfile");
    PLAIN(judge_fd(WRITE, out), real(out, in, at, size));
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    static ssize_t (*real)(int, int, off64_t *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "sendfile64");
    PLAIN(judge_fd(WRITE, out), real(out, in, at, size));
}

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    REAL(copy_file_range);
    PLAIN(judge_fd(WRITE, out), real(in, in_at, out, out_at, size, flags));
}

int fsync(int fd) { REAL(fsync); PLAIN(judge_fd(FSYNC, fd), real(fd)); }
int fdatasync(int fd) { REAL(fdatasync); PLAIN(judge_fd(FSYNC, fd), real(fd)); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); PLAIN(judge_fd(TRUNCATE, fd), real(fd, n)); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); PLAIN(judge_fd(TRUNCATE, fd), real(fd, n)); }

int posix_fallocate(int fd, off_t at, off_t n) {
    REAL(posix_fallocate);
    return judge_fd(TRUNCATE, fd) == FAIL ? number : real(fd, at, n);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    PLAIN(judge_at(RENAME, AT_FDCWD, to), real(from, to));
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    REAL(renameat);
    PLAIN(judge_at(RENAME, to_at, to), real(from_at, from, to_at, to));
}

int link(const char *from, const char *to) {
    REAL(link);
    PLAIN(judge_at(RENAME, AT_FDCWD, to), real(from, to));
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    PLAIN(judge_at(MKDIR, AT_FDCWD, path), real(path, mode));
}

int mkdirat(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    PLAIN(judge_at(MKDIR, at, path), real(at, path, mode));
}

int unlink(const char *path) {
    REAL(unlink);
    PLAIN(judge_at(UNLINK, AT_FDCWD, path), real(path));
}

int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    PLAIN(judge_at(UNLINK, at, path), real(at, path, flags));
}

int rmdir(const char *path) {
    REAL(rmdir);
    PLAIN(judge_at(UNLINK, AT_FDCWD, path), real(path));
}

/* Opening to write counts as creating; opening to read is left alone. */
#define OPENED(at, path, flags, call) \
    do { \
        mode_t mode = 0; \
        if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        int writes = flags & (O_CREAT | O_TRUNC) || (flags & O_ACCMODE) != O_RDONLY; \
        PLAIN(writes ? judge_at(CREATE, at, path) : 0, call); \
    } while (0)

int open(const char *path, int flags, ...) {
    REAL(open);
    OPENED(AT_FDCWD, path, flags, real(path, flags, mode));
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    OPENED(AT_FDCWD, path, flags, real(path, flags, mode));
}

int openat(int at, const char *path, int flags, ...) {
    REAL(openat);
    OPENED(at, path, flags, real(at, path, flags, mode));
}

int openat64(int at, const char *path, int flags, ...) {
    REAL(openat64);
    OPENED(at, path, flags, real(at, path, flags, mode));
}

#define FOPENED(path, how, call) \
    do { \
        int v = strpbrk(how, "wa+") ? judge_at(CREATE, AT_FDCWD, path) : 0; \
        if (v == FAIL) { errno = number; return NULL; } \
        FILE *result = (call); \
        if (v == KILL_AFTER || v == TEAR) die(); \
        return result; \
    } while (0)

FILE *fopen(const char *path, const char *how) {
    REAL(fopen);
    FOPENED(path, how, real(path, how));
}

FILE *fopen64(const char *path, const char *how) {
    REAL(fopen64);
    FOPENED(path, how, real(path, how));
}

/* How much of a read a page that cannot be read leaves, the nth of the file counted from 1; -1 for
   nothing. Whatever reads it, and however often, as of a disk that has a bad place. */
static ssize_t readable(const char *path, off_t at, size_t size) {
    off_t bad = (nth - 1) * PAGE;
    if (at < 0 || at >= bad + PAGE || at + (off_t)size <= bad) return size;
    if (atomic_fetch_add(&report->fired, 1) == 0) {
        report->kind = READ;
        snprintf(report->path, sizeof report->path, "%s", path);
    }
    return at < bad ? bad - at : -1;
}

static ssize_t readable_fd(int fd, off_t at, size_t size) {
    char buffer[PATH_MAX];
    int saved = errno;
    ssize_t left = size;
    if (action == BAD_PAGE && atomic_load(&armed) && fd_path(fd, buffer, sizeof buffer) && inside(buffer))
        left = readable(buffer, at, size);
    errno = left < 0 ? number : saved;
    return left;
}

/* A call that reads: it fails, is cut short, or meets a page that cannot be read. */
#define READING(fd, at, size, call) \
    do { \
        int v = action == BAD_PAGE ? 0 : judge_fd(READ, fd); \
        ssize_t left = readable_fd(fd, at, size); \
        if (left < 0) return -1; \
        size = left; \
        if ((v == SHORT || v == SHORT_FULL) && size > 1) size /= 2; \
        PLAIN(v, call); \
    } while (0)

ssize_t read(int fd, void *buffer, size_t size) {
    REAL(read);
    READING(fd, lseek(fd, 0, SEEK_CUR), size, real(fd, buffer, size));
}

ssize_t pread(int fd, void *buffer, size_t size, off_t at) {
    REAL(pread);
    READING(fd, at, size, real(fd, buffer, size, at));
}

ssize_t pread64(int fd, void *buffer, size_t size, off64_t at) {
    REAL(pread64);
    READING(fd, at, size, real(fd, buffer, size, at));
}

/* glibc's mark of a stream that met an error: GDAL asks for it. */
static size_t failed_stream(FILE *file, size_t done) {
    file->_flags |= 0x20;
    errno = number;
    return done;
}

size_t fread(void *buffer, size_t size, size_t count, FILE *file) {
    REAL(fread);
    int v = action == BAD_PAGE ? 0 : judge_fd(READ, fileno(file));
    if (v == FAIL) return failed_stream(file, 0);
    ssize_t left = readable_fd(fileno(file), ftello(file), size * count);
    if (left < 0) return failed_stream(file, 0);
    if ((size_t)left < size * count) return failed_stream(file, real(buffer, size, left / size, file));
    return real(buffer, size, count, file);
}
