/* Stands between a program and the C library (LD_PRELOAD), for tests of real processes. By environment variables it
 *
 * - records every change that the program makes to files below one folder, in order and with the data, and which of them it
 *   was told are durable (SHIM_ROOT, SHIM_TRACE, SHIM_NODE): `src/power/trace.rs` reads the records;
 * - answers as a disk does that is full or broken (SHIM_FULL, SHIM_FULL_AFTER, SHIM_ERRNO);
 * - sets the clock wrong (SHIM_CLOCK_MS).
 *
 * What bypasses the C library is not seen: whoever records compares the folder with the records afterwards. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { START = 1, OPEN, CLOSE, DUP, WRITE, TRUNCATE, RENAME, LINK, UNLINK, RMDIR, MKDIR, SYNC_BEGIN, SYNC_END, UNKNOWN };
/* What a sync is of: flags of SYNC_BEGIN. */
enum extent { WHOLE = 0, DATA = 1, RANGE = 2, FILE_SYSTEM = 3 };

/* Before each record's bytes; little-endian, as the machine is. `len` counts both. The harness's own records, in the same
 * file, have the same head. */
struct head {
    uint32_t len;
    uint16_t node, kind;
    int32_t fd;
    uint32_t flags;
    uint64_t a, b;
};

#define FDS (1 << 16)
#define MINE 1
#define FULL 2

static unsigned char known[FDS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1, failure = ENOSPC;
static uint16_t node;
static char root[PATH_MAX];
static size_t root_len;
static const char *full_part;
static long long full_after;
static long sync_us = -1;
static long long clock_ns;
static uint64_t syncs;

static int has(int fd, int flag) { return fd >= 0 && fd < FDS && (known[fd] & flag); }
static void forget(int fd) { if (fd >= 0 && fd < FDS) known[fd] = 0; }
static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { int e = errno; pthread_mutex_unlock(&mutex); errno = e; }

/* Under the lock, right after what it tells of. */
static void tell(enum kind kind, int fd, uint32_t flags, uint64_t a, uint64_t b, const struct iovec *data, int count) {
    if (trace < 0) return;
    int before = errno;
    struct iovec parts[IOV_MAX];
    size_t len = sizeof(struct head);
    int used = 1;
    for (int i = 0; i < count; i++) {
        if (!data[i].iov_len) continue;
        if (used == IOV_MAX) abort();
        len += data[i].iov_len;
        parts[used++] = data[i];
    }
    struct head head = {(uint32_t)len, node, (uint16_t)kind, fd, flags, a, b};
    parts[0] = (struct iovec){&head, sizeof head};
    /* One call, so that it is one piece beside other processes' records. */
    if (len > UINT32_MAX || syscall(SYS_writev, trace, parts, used) != (long)len) abort();
    errno = before;
}

static void tell_path(enum kind kind, int fd, uint32_t flags, const char *path, const char *other) {
    struct iovec parts[3] = {{(void *)path, strlen(path)}, {"", 1}, {(void *)other, other ? strlen(other) : 0}};
    tell(kind, fd, flags, 0, 0, parts, other ? 3 : 1);
}

__attribute__((constructor)) static void begin(void) {
    const char *text;
    if ((text = getenv("SHIM_ROOT"))) root_len = strlen(strncpy(root, text, sizeof root - 1));
    if ((text = getenv("SHIM_NODE"))) node = (uint16_t)atoi(text);
    if ((text = getenv("SHIM_ERRNO"))) failure = atoi(text);
    if ((text = getenv("SHIM_FULL_AFTER"))) full_after = atoll(text);
    if ((text = getenv("SHIM_SYNC_US"))) sync_us = atol(text);
    if ((text = getenv("SHIM_CLOCK_MS"))) clock_ns = atoll(text) * 1000000;
    full_part = getenv("SHIM_FULL");
    if ((text = getenv("SHIM_TRACE"))) {
        trace = (int)syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (trace < 0) abort();
        tell_path(START, -1, 0, root, NULL);
    }
}

/* The whole path, and whether it is below the folder. */
static int below(int dir, const char *path, char whole[PATH_MAX]) {
    if (!root_len || !path) return 0;
    size_t at = 0;
    if (path[0] != '/') {
        if (dir == AT_FDCWD) {
            if (!getcwd(whole, PATH_MAX)) return 0;
            at = strlen(whole);
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t n = readlink(link, whole, PATH_MAX - 1);
            if (n < 0) return 0;
            at = (size_t)n;
        }
        whole[at++] = '/';
    }
    if (at + strlen(path) >= PATH_MAX) return 0;
    strcpy(whole + at, path);
    return !strncmp(whole, root, root_len) && (whole[root_len] == '/' || !whole[root_len]);
}

/* Whether a write of so many bytes fails. */
static int fails(int fd, size_t len) {
    if (!has(fd, FULL) || (full_after -= (long long)len) >= 0) return 0;
    errno = failure;
    return 1;
}

static int opens(int dir, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    if (!below(dir, path, whole)) {
        int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
        forget(fd);
        return fd;
    }
    lock();
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= FDS) abort();
    if (fd >= 0) {
        known[fd] = (unsigned char)(MINE | (full_part && strstr(whole, full_part) ? FULL : 0));
        tell_path(OPEN, fd, (uint32_t)flags, whole, NULL);
    }
    unlock();
    return fd;
}

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, last); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags, flags) return opens(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags) return opens(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags, flags) return opens(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags, flags) return opens(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opens(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

/* What is written through the library's own streams is not seen: such a file counts as there, with any content. */
static FILE *streams(const char *name, const char *path, const char *mode) {
    FILE *(*real)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, name);
    char whole[PATH_MAX];
    lock();
    FILE *file = real(path, mode);
    if (file) forget(fileno(file));
    if (file && mode[0] != 'r' && below(AT_FDCWD, path, whole)) tell_path(OPEN, -1, O_WRONLY | O_CREAT, whole, NULL);
    unlock();
    return file;
}
FILE *fopen(const char *path, const char *mode) { return streams("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return streams("fopen64", path, mode); }

int close(int fd) {
    if (!has(fd, MINE)) return (int)syscall(SYS_close, fd);
    lock();
    tell(CLOSE, fd, 0, 0, 0, NULL, 0);
    forget(fd);
    int done = (int)syscall(SYS_close, fd);
    unlock();
    return done;
}

int closedir(DIR *dir) {
    int (*real)(DIR *) = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    lock();
    int fd = dirfd(dir);
    if (has(fd, MINE)) tell(CLOSE, fd, 0, 0, 0, NULL, 0);
    forget(fd);
    int done = real(dir);
    unlock();
    return done;
}

static int copies(int from, int to) {
    if (to >= FDS) abort();
    if (to >= 0) known[to] = 0;
    if (to >= 0 && has(from, MINE)) {
        known[to] = known[from];
        tell(DUP, from, 0, (uint64_t)to, 0, NULL, 0);
    }
    return to;
}
int dup(int fd) { lock(); int to = copies(fd, (int)syscall(SYS_dup, fd)); unlock(); return to; }
int dup3(int fd, int to, int flags) { lock(); to = copies(fd, (int)syscall(SYS_dup3, fd, to, flags)); unlock(); return to; }
int dup2(int fd, int to) { return fd == to ? to : dup3(fd, to, 0); }
static int controls(int fd, int command, long argument) {
    if (command != F_DUPFD && command != F_DUPFD_CLOEXEC) return (int)syscall(SYS_fcntl, fd, command, argument);
    lock();
    int to = copies(fd, (int)syscall(SYS_fcntl, fd, command, argument));
    unlock();
    return to;
}
#define ARGUMENT va_list rest; va_start(rest, command); long argument = va_arg(rest, long); va_end(rest);
int fcntl(int fd, int command, ...) { ARGUMENT return controls(fd, command, argument); }
int fcntl64(int fd, int command, ...) { ARGUMENT return controls(fd, command, argument); }

static uint64_t sync_begins(int fd, enum extent extent, uint64_t a, uint64_t b) {
    lock();
    uint64_t id = ++syncs;
    struct iovec range = {(uint64_t[]){a, b}, 16};
    tell(SYNC_BEGIN, fd, extent, id, 0, &range, 1);
    unlock();
    return id;
}
static void sync_ends(uint64_t id) {
    if (sync_us > 0) {
        struct timespec pause = {sync_us / 1000000, sync_us % 1000000 * 1000};
        syscall(SYS_nanosleep, &pause, NULL);
    }
    lock();
    tell(SYNC_END, -1, 0, id, 0, NULL, 0);
    unlock();
}
/* Nothing of the real disk is lost, so that waiting for it can be left out. */
static int syncs_with(long number, int fd, enum extent extent) {
    if (!has(fd, MINE)) return (int)syscall(number, fd);
    if (has(fd, FULL) && full_after < 0) { errno = failure; return -1; }
    uint64_t id = sync_begins(fd, extent, 0, 0);
    int done = sync_us >= 0 ? 0 : (int)syscall(number, fd);
    if (!done) sync_ends(id);
    return done;
}
int fsync(int fd) { return syncs_with(SYS_fsync, fd, WHOLE); }
int fdatasync(int fd) { return syncs_with(SYS_fdatasync, fd, DATA); }
int syncfs(int fd) { return syncs_with(SYS_syncfs, fd, FILE_SYSTEM); }

/* `offset` below 0: where the file's position is. Only `flags` that ask for durability change what a record says. */
static ssize_t writes(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    int durable = offset >= 0 && (flags & (RWF_DSYNC | RWF_SYNC));
    size_t len = 0;
    if (count >= IOV_MAX) count = IOV_MAX - 1;
    for (int i = 0; i < count; i++) len += parts[i].iov_len;
    lock();
    if (fails(fd, len)) { unlock(); return -1; }
    ssize_t done = offset < 0 ? syscall(SYS_writev, fd, parts, count)
                              : syscall(SYS_pwritev2, fd, parts, count, offset, 0, flags & ~(RWF_DSYNC | RWF_SYNC));
    uint64_t at = offset < 0 ? 0 : (uint64_t)offset;
    if (done > 0) {
        if (offset < 0) at = (uint64_t)(lseek(fd, 0, SEEK_CUR) - done);
        tell(WRITE, fd, 0, at, (uint64_t)done, parts, count);
        if ((size_t)done < len && trace >= 0) abort();
    }
    unlock();
    if (done > 0 && durable) {
        uint64_t id = sync_begins(fd, RANGE, at, (uint64_t)done);
        if (sync_us < 0 && syscall(SYS_fdatasync, fd)) return -1;
        sync_ends(id);
    }
    return done;
}

ssize_t write(int fd, const void *data, size_t len) {
    if (!has(fd, MINE)) return syscall(SYS_write, fd, data, len);
    struct iovec part = {(void *)data, len};
    return writes(fd, &part, 1, -1, 0);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return has(fd, MINE) ? writes(fd, parts, count, -1, 0) : syscall(SYS_writev, fd, parts, count);
}
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    if (!has(fd, MINE)) return syscall(SYS_pwrite64, fd, data, len, offset);
    struct iovec part = {(void *)data, len};
    return writes(fd, &part, 1, offset, 0);
}
ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) { return pwrite64(fd, data, len, offset); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    return has(fd, MINE) ? writes(fd, parts, count, offset, flags) : syscall(SYS_pwritev2, fd, parts, count, offset, 0, flags);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return pwritev64v2(fd, parts, count, offset, flags);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return pwritev64v2(fd, parts, count, offset, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev64v2(fd, parts, count, offset, 0); }

int ftruncate64(int fd, off64_t len) {
    if (!has(fd, MINE)) return (int)syscall(SYS_ftruncate, fd, len);
    lock();
    int done = (int)syscall(SYS_ftruncate, fd, len);
    if (!done) tell(TRUNCATE, fd, 0, (uint64_t)len, 0, NULL, 0);
    unlock();
    return done;
}
int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

/* Room that does not change the length is nothing that a file holds. */
int fallocate64(int fd, int mode, off64_t offset, off64_t len) {
    if (!has(fd, MINE)) return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    lock();
    if (has(fd, FULL) && full_after < 0) { unlock(); errno = failure; return -1; }
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, len);
    struct stat now;
    if (!done && mode == 0 && !fstat(fd, &now)) tell(TRUNCATE, fd, 0, (uint64_t)now.st_size, 0, NULL, 0);
    if (!done && mode != 0 && mode != FALLOC_FL_KEEP_SIZE) tell_path(UNKNOWN, fd, 0, "fallocate", NULL);
    unlock();
    return done;
}
int fallocate(int fd, int mode, off_t offset, off_t len) { return fallocate64(fd, mode, offset, len); }
int posix_fallocate64(int fd, off64_t offset, off64_t len) { return fallocate64(fd, 0, offset, len) ? errno : 0; }
int posix_fallocate(int fd, off_t offset, off_t len) { return posix_fallocate64(fd, offset, len); }

/* A change of names, told if it has happened. */
#define CHANGE(kind, dir, path, other, call) \
    char whole[PATH_MAX]; \
    if (!below(dir, path, whole)) return (int)(call); \
    lock(); \
    int done = (int)(call); \
    if (!done) tell_path(kind, -1, 0, whole, other); \
    unlock(); \
    return done;

static int renames(int dir, const char *path, int to_dir, const char *to, unsigned flags) {
    char other[PATH_MAX];
    if (!below(to_dir, to, other)) other[0] = 0;
    CHANGE(flags > 1 || !other[0] ? UNKNOWN : RENAME, dir, path, other, syscall(SYS_renameat2, dir, path, to_dir, to, flags))
}
int rename(const char *path, const char *to) { return renames(AT_FDCWD, path, AT_FDCWD, to, 0); }
int renameat(int dir, const char *path, int to_dir, const char *to) { return renames(dir, path, to_dir, to, 0); }
int renameat2(int dir, const char *path, int to_dir, const char *to, unsigned flags) {
    return renames(dir, path, to_dir, to, flags);
}
int linkat(int dir, const char *path, int to_dir, const char *to, int flags) {
    char other[PATH_MAX];
    if (!below(to_dir, to, other)) other[0] = 0;
    CHANGE(LINK, dir, path, other, syscall(SYS_linkat, dir, path, to_dir, to, flags))
}
int link(const char *path, const char *to) { return linkat(AT_FDCWD, path, AT_FDCWD, to, 0); }
int symlink(const char *target, const char *path) {
    CHANGE(UNKNOWN, AT_FDCWD, path, NULL, syscall(SYS_symlinkat, target, AT_FDCWD, path))
}
int unlinkat(int dir, const char *path, int flags) {
    CHANGE(flags & AT_REMOVEDIR ? RMDIR : UNLINK, dir, path, NULL, syscall(SYS_unlinkat, dir, path, flags))
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) { return unlink(path) && errno == EISDIR ? rmdir(path) : 0; }
int mkdirat(int dir, const char *path, mode_t mode) {
    CHANGE(MKDIR, dir, path, NULL, syscall(SYS_mkdirat, dir, path, mode))
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int truncate(const char *path, off_t len) { CHANGE(UNKNOWN, AT_FDCWD, path, NULL, syscall(SYS_truncate, path, len)) }
int truncate64(const char *path, off64_t len) { return truncate(path, len); }

/* What would change a file behind the records. */
static void unknown(int fd, const char *what) {
    if (!has(fd, MINE)) return;
    lock();
    tell_path(UNKNOWN, fd, 0, what, NULL);
    unlock();
}
void *mmap64(void *at, size_t len, int protection, int flags, int fd, off64_t offset) {
    if ((protection & PROT_WRITE) && (flags & MAP_SHARED)) unknown(fd, "mmap");
    return (void *)syscall(SYS_mmap, at, len, protection, flags, fd, offset);
}
void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset) {
    return mmap64(at, len, protection, flags, fd, offset);
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *to_at, size_t len, unsigned flags) {
    unknown(to, "copy_file_range");
    return syscall(SYS_copy_file_range, from, at, to, to_at, len, flags);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t len) {
    unknown(to, "sendfile");
    return syscall(SYS_sendfile, to, from, at, len);
}
ssize_t sendfile(int to, int from, off_t *at, size_t len) { return sendfile64(to, from, at, len); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = (int)syscall(SYS_clock_gettime, clock, now);
    if (!done && clock_ns && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long ns = now->tv_sec * 1000000000LL + now->tv_nsec + clock_ns;
        *now = (struct timespec){ns / 1000000000, ns % 1000000000};
    }
    return done;
}
int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    *now = (struct timeval){time.tv_sec, time.tv_nsec / 1000};
    return 0;
}
time_t time(time_t *now) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (now) *now = time.tv_sec;
    return time.tv_sec;
}
