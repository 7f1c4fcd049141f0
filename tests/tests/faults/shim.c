/* Makes the n-th write or sync of the store fail. Loaded in front of libc by LD_PRELOAD.
 *
 * FAULT_KIND   EIO, ENOSPC, or SHORT (a write takes half of what it is given, and says so)
 * FAULT_CALL   write or sync
 * FAULT_AT     the number of the call that fails, from 1
 * FAULT_LASTS  1: all later ones fail too
 * FAULT_WAITS  1: count only after the process listens
 * FAULT_MARK   a file to make when the fault happens, a second before the call returns
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_int listening;
static atomic_long calls;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int is_store(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, "store.redb") != NULL;
}

/* Whether this call is one that fails. */
static int is_hit(const char *call, int fd) {
    if (strcmp(setting("FAULT_CALL"), call) != 0 || !is_store(fd))
        return 0;
    if (atoi(setting("FAULT_WAITS")) && !atomic_load(&listening))
        return 0;
    long number = atomic_fetch_add(&calls, 1) + 1, at = atol(setting("FAULT_AT"));
    if (number == at) {
        int mark = open(setting("FAULT_MARK"), O_CREAT | O_WRONLY, 0600);
        if (mark >= 0)
            close(mark);
        dprintf(2, "fault: %s %ld of the store: %s\n", call, number, setting("FAULT_KIND"));
        sleep(1);
    }
    return number == at || (number > at && atoi(setting("FAULT_LASTS")));
}

static int is_short(void) { return strcmp(setting("FAULT_KIND"), "SHORT") == 0; }

static int fail(void) {
    errno = strcmp(setting("FAULT_KIND"), "ENOSPC") == 0 ? ENOSPC : EIO;
    return -1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int listen(int fd, int backlog) {
    int result = NEXT(listen)(fd, backlog);
    atomic_store(&listening, 1);
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    if (is_hit("write", fd)) {
        if (!is_short())
            return fail();
        count = count > 1 ? count / 2 : count;
    }
    return NEXT(pwrite)(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    if (is_hit("write", fd)) {
        if (!is_short())
            return fail();
        count = count > 1 ? count / 2 : count;
    }
    return NEXT(pwrite64)(fd, bytes, count, offset);
}

int fdatasync(int fd) { return is_hit("sync", fd) ? fail() : NEXT(fdatasync)(fd); }

int fsync(int fd) { return is_hit("sync", fd) ? fail() : NEXT(fsync)(fd); }
