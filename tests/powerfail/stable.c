/* Preloaded into a process whose storage is simulated (simulator.py).
 *
 * The process works on an ordinary file on tmpfs, so mappings, locks and identity
 * are the real ones. The one thing that is not real is what reaches the disk: each
 * call that makes data durable is handed to the supervisor, which copies the pages
 * that differ to its picture of the disk, and answers with 0 or an errno. Calls
 * that change the file's space are reported too, some of them: they are good
 * moments for the power to fail. All others go on as if nothing were there.
 *
 * POWERFAIL_FILE    the file; nothing else is watched
 * POWERFAIL_SOCKET  where the supervisor listens
 *
 * Not durable here: MS_ASYNC and sync_file_range (they promise nothing). Not
 * handled: O_SYNC and RWF_DSYNC. What was synced before the file had its name is
 * on the disk from the next sync on only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

enum { LOOK = 0, SYNC = 1 };

struct request {
    uint64_t kind;
    uint64_t offset;
    uint64_t length; /* 0: to the end */
};

static int watched_file(struct stat* st) {
    const char* path = getenv("POWERFAIL_FILE");
    return path != NULL && stat(path, st) == 0;
}

static int is_watched(int fd) {
    struct stat there;
    struct stat here;
    return watched_file(&there) && fstat(fd, &here) == 0 && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

/* A supervisor that is gone is the end of the experiment. */
static void give_up(const char* what) {
    fprintf(stderr, "powerfail: %s: %s\n", what, strerror(errno));
    _exit(99);
}

/* Returns the supervisor's answer. One connection for each call, so that answers
 * find their threads. */
static int tell(uint64_t kind, uint64_t offset, uint64_t length) {
    const int saved = errno;
    const char* path = getenv("POWERFAIL_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || strlen(path) >= sizeof address.sun_path) {
        give_up("POWERFAIL_SOCKET");
    }
    strcpy(address.sun_path, path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0) {
        if (fd < 0 || (errno != EINTR && errno != EAGAIN)) {
            give_up("connect");
        }
    }
    const struct request request = {kind, offset, length};
    int32_t answer = 0;
    while (send(fd, &request, sizeof request, MSG_NOSIGNAL) != (ssize_t)sizeof request) {
        if (errno != EINTR) {
            give_up("send");
        }
    }
    ssize_t got;
    while ((got = recv(fd, &answer, sizeof answer, MSG_WAITALL)) != (ssize_t)sizeof answer) {
        if (got >= 0 || errno != EINTR) {
            give_up("recv");
        }
    }
    close(fd);
    errno = saved;
    return answer;
}

static int told(int answer) {
    if (answer != 0) {
        errno = answer;
        return -1;
    }
    return 0;
}

/* One in eight; the order of calls decides, not the clock. */
static void look(int fd) {
    static unsigned count;
    if (__atomic_add_fetch(&count, 1, __ATOMIC_RELAXED) % 8 == 0 && is_watched(fd)) {
        (void)tell(LOOK, 0, 0);
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fdatasync(int fd) { return is_watched(fd) ? told(tell(SYNC, 0, 0)) : NEXT(fdatasync)(fd); }

int fsync(int fd) { return is_watched(fd) ? told(tell(SYNC, 0, 0)) : NEXT(fsync)(fd); }

int syncfs(int fd) {
    struct stat st;
    const int failed = watched_file(&st) ? tell(SYNC, 0, 0) : 0;
    return failed != 0 ? told(failed) : NEXT(syncfs)(fd);
}

void sync(void) {
    struct stat st;
    if (watched_file(&st)) {
        (void)tell(SYNC, 0, 0);
    }
    NEXT(sync)();
}

/* Where in the watched file an address is mapped, shared. */
static int watched_offset(const void* address, uint64_t* offset) {
    struct stat st;
    FILE* maps = watched_file(&st) ? fopen("/proc/self/maps", "re") : NULL;
    if (maps == NULL) {
        return 0;
    }
    int found = 0;
    char line[4352];
    while (!found && fgets(line, sizeof line, maps) != NULL) {
        unsigned long long begin;
        unsigned long long end;
        unsigned long long start;
        unsigned long inode;
        unsigned major_number;
        unsigned minor_number;
        char mode[5];
        if (sscanf(line, "%llx-%llx %4s %llx %x:%x %lu", &begin, &end, mode, &start, &major_number,
                   &minor_number, &inode) == 7 &&
            (uintptr_t)address >= begin && (uintptr_t)address < end) {
            found = mode[3] == 's' && inode == st.st_ino &&
                    makedev(major_number, minor_number) == st.st_dev;
            *offset = start + ((uintptr_t)address - begin);
            break;
        }
    }
    fclose(maps);
    return found;
}

int msync(void* address, size_t length, int flags) {
    uint64_t offset;
    if ((flags & MS_SYNC) != 0 && length != 0 && watched_offset(address, &offset)) {
        return told(tell(SYNC, offset, length));
    }
    return NEXT(msync)(address, length, flags);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    look(fd);
    return NEXT(fallocate)(fd, mode, offset, length);
}

int ftruncate(int fd, off_t length) {
    look(fd);
    return NEXT(ftruncate)(fd, length);
}

ssize_t pwrite(int fd, const void* from, size_t length, off_t offset) {
    look(fd);
    return NEXT(pwrite)(fd, from, length, offset);
}

/* The same functions by the names that a program built for large files calls. */
int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    return fallocate(fd, mode, offset, length);
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

ssize_t pwrite64(int fd, const void* from, size_t length, off64_t offset) {
    return pwrite(fd, from, length, offset);
}
