/* Preloaded into a process: numbers the calls that decide what survives a crash, and ends the process at one of them.
 *
 * Counted, in the process that called `crash_arm` and below its folder only: fsync, fdatasync, rename, renameat, renameat2,
 * the write of a commit frame to an SQLite log (the 24 bytes whose second word is not 0: SQLite's file format, 4.2), and
 * the write of a chunk to a payload's part. One call at a time, each a line "number kind path" in the log before it is made.
 *
 * With a folder for what is durable, it keeps there what a power cut may leave at the least: c<inode>, a file as it was
 * when it was last synced, and d<inode>, the names in a folder when that was last synced.
 *
 * With a socket, it says a word there before each call ('b') and after it ('a'), and goes on when it is answered: whoever is
 * at the other end sees the files as they are at that moment.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { NEVER = 0, BEFORE = 1, AFTER = 2 };
enum { HELD_MOST = 4096 };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pid_t armed;
static char root[PATH_MAX], durable[PATH_MAX], only[PATH_MAX];
static size_t root_length;
static int log_descriptor = -1, observer = -1, when;
static long number, matched, at;
static int here; /* the call that has its turn is the one */
static __thread int counting; /* in its turn: what we do ourselves is not counted */
static ino_t held[HELD_MOST];
static int held_count;

#define NEXT(name)                                                                                             \
    static __typeof__(name) *name##_next;                                                                      \
    if (!name##_next) name##_next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static void broken(const char *what) {
    dprintf(2, "interpose: %s: %s\n", what, strerror(errno));
    abort();
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whoever watches looks at the files now. */
static void shown(char moment) {
    ssize_t got;
    if (observer < 0) return;
    if (write(observer, &moment, 1) != 1) broken("observer");
    while ((got = read(observer, &moment, 1)) < 0 && errno == EINTR) continue;
    if (got != 1) broken("observer");
}

/* ---- what is durable */

/* An inode number that we know stays that file's: it is kept open, so that no later file gets it. */
static void hold(int folder, const char *name, ino_t inode) {
    for (int i = 0; i < held_count; i++)
        if (held[i] == inode) return;
    if (held_count == HELD_MOST || openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) < 0) broken(name);
    held[held_count++] = inode;
}

static int made(char kind, ino_t inode) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%c%lu", durable, kind, (unsigned long)inode);
    int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) broken(path);
    return to;
}

static void keep_file(int from, ino_t inode) {
    char piece[65536];
    off_t offset = 0;
    ssize_t got;
    int to = made('c', inode);
    while ((got = pread(from, piece, sizeof piece, offset)) > 0) {
        if (write(to, piece, got) != got) broken("write");
        offset += got;
    }
    if (got < 0) broken("pread");
    close(to);
}

static void keep_folder(const char *path, ino_t inode, int deep) {
    int to = made('d', inode);
    DIR *folder = opendir(path);
    struct dirent *entry;
    if (!folder) broken(path);
    while ((entry = readdir(folder))) {
        struct stat status;
        char below[PATH_MAX * 2], target[PATH_MAX] = "";
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW)) broken(entry->d_name);
        hold(dirfd(folder), entry->d_name, status.st_ino);
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        char kind = S_ISDIR(status.st_mode) ? 'd' : S_ISLNK(status.st_mode) ? 'l' : 'c';
        if (kind == 'l' && readlink(below, target, sizeof target - 1) < 0) broken(below);
        dprintf(to, "%c %lu %s %s\n", kind, (unsigned long)status.st_ino, entry->d_name, target);
        if (deep && kind == 'd') keep_folder(below, status.st_ino, 1);
        if (deep && kind == 'c') {
            int from = open(below, O_RDONLY | O_CLOEXEC);
            if (from < 0) broken(below);
            keep_file(from, status.st_ino);
            close(from);
        }
    }
    closedir(folder);
    close(to);
}

static void keep(int descriptor, const char *path) {
    struct stat status;
    if (!durable[0]) return;
    if (fstat(descriptor, &status)) broken(path);
    if (S_ISDIR(status.st_mode)) {
        keep_folder(path, status.st_ino, 0);
        return;
    }
    /* Read through the caller's descriptor: closing one of our own would drop SQLite's locks. */
    int flags = fcntl(descriptor, F_GETFL), from = descriptor;
    if ((flags & O_ACCMODE) == O_WRONLY) from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) broken(path);
    hold(AT_FDCWD, path, status.st_ino);
    keep_file(from, status.st_ino);
    if (from != descriptor) close(from);
}

/* ---- numbers */

/* From now on, in this process: end it before or after the call with the number `point` (0: never) among those whose
 * "kind path" begins with `alike` (empty: all). `keep_in` may be empty: then nothing is kept of what is durable.
 * `watched_by`: a socket, or -1. */
void crash_arm(const char *folder, int log, long point, int before_or_after, const char *alike, const char *keep_in,
               int watched_by) {
    struct stat status;
    root_length = strlen(folder);
    strcpy(root, folder);
    strcpy(durable, keep_in);
    strcpy(only, alike);
    log_descriptor = log;
    observer = watched_by;
    number = matched = 0;
    at = point;
    when = point ? before_or_after : NEVER;
    if (durable[0]) {
        if (stat(root, &status)) broken(root);
        keep_folder(root, status.st_ino, 1);
    }
    armed = getpid();
}

/* The same from the environment, for a program that knows nothing of this; its own children are left alone. */
__attribute__((constructor)) static void arm_from_environment(void) {
    const char *folder = getenv("CRASH_FOLDER"), *log = getenv("CRASH_LOG"), *point = getenv("CRASH_AT");
    const char *how = getenv("CRASH_HOW"), *alike = getenv("CRASH_ONLY");
    if (!folder || !log || !point || !how || !alike) return;
    int descriptor = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (descriptor < 0) broken(log);
    crash_arm(folder, descriptor, atol(point), strcmp(how, "after") ? BEFORE : AFTER, alike, "", -1);
    unsetenv("LD_PRELOAD");
}

static const char *below_root(const char *path) {
    return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]) ? path + root_length : NULL;
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int ours(void) {
    return armed && armed == getpid() && !counting;
}

/* With the turn taken. */
static void begin(const char *kind, const char *below) {
    char call[PATH_MAX + 32];
    const char *path = *below ? below + 1 : ".";
    counting = 1;
    number++;
    dprintf(log_descriptor, "%ld %s %s\n", number, kind, path);
    snprintf(call, sizeof call, "%s %s", kind, path);
    here = !strncmp(call, only, strlen(only)) && ++matched == at;
    if (here && when == BEFORE) die();
    shown('b');
}

static void end(void) {
    if (here && when == AFTER) die();
    shown('a');
    counting = 0;
}

static int synced(int descriptor, const char *kind, int (*next)(int)) {
    char path[PATH_MAX];
    const char *below;
    if (!ours() || !path_of(descriptor, path) || !(below = below_root(path))) return next(descriptor);
    pthread_mutex_lock(&turn);
    begin(kind, below);
    int result = next(descriptor), error = errno;
    if (!result) keep(descriptor, path);
    end();
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int fsync(int descriptor) {
    NEXT(fsync);
    return synced(descriptor, "fsync", fsync_next);
}

int fdatasync(int descriptor) {
    NEXT(fdatasync);
    return synced(descriptor, "fdatasync", fdatasync_next);
}

static int full_path(int folder, const char *name, char *path) {
    char base[PATH_MAX];
    if (*name == '/') return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(folder, base)) return 0;
    return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
}

/* Named by where it goes: where it comes from may have a random name. */
#define RENAMED(kind, folder, name, call)                                                                      \
    char path[PATH_MAX];                                                                                       \
    const char *below;                                                                                         \
    if (!ours() || !full_path(folder, name, path) || !(below = below_root(path))) return call;                 \
    pthread_mutex_lock(&turn);                                                                                 \
    begin(kind, below);                                                                                        \
    int result = call, error = errno;                                                                          \
    end();                                                                                                     \
    pthread_mutex_unlock(&turn);                                                                               \
    errno = error;                                                                                             \
    return result

int rename(const char *from, const char *to) {
    NEXT(rename);
    RENAMED("rename", AT_FDCWD, to, rename_next(from, to));
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    NEXT(renameat);
    RENAMED("renameat", to_folder, to, renameat_next(from_folder, from, to_folder, to));
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    NEXT(renameat2);
    RENAMED("renameat2", to_folder, to, renameat2_next(from_folder, from, to_folder, to, flags));
}

static const char *kind_of(const char *path, const void *data, size_t size) {
    const unsigned char *bytes = data;
    size_t length = strlen(path);
    if (length > 4 && !strcmp(path + length - 4, "-wal") && size == 24 && (bytes[4] | bytes[5] | bytes[6] | bytes[7]))
        return "commit";
    if (length > 5 && !strcmp(path + length - 5, ".part")) return "chunk";
    return NULL;
}

static ssize_t written(int descriptor, const void *data, size_t size, off64_t offset,
                       ssize_t (*next)(int, const void *, size_t, off64_t)) {
    char path[PATH_MAX];
    const char *below, *kind;
    if (!ours() || !path_of(descriptor, path) || !(below = below_root(path)) || !(kind = kind_of(path, data, size)))
        return next(descriptor, data, size, offset);
    pthread_mutex_lock(&turn);
    begin(kind, below);
    ssize_t result = next(descriptor, data, size, offset);
    int error = errno;
    end();
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    NEXT(pwrite64);
    return written(descriptor, data, size, offset, pwrite64_next);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    NEXT(pwrite);
    return written(descriptor, data, size, offset, pwrite_next);
}
