/* Loaded before the C library (LD_PRELOAD): keeps aside what a disk would hold if the power failed now.
 *
 * Below POWER_ROOT every fsync, fdatasync and msync(MS_SYNC) leaves in POWER_SHADOW what it made durable: of a file its
 * content as it was when the call began, of a folder its names. Nothing else is durable: no write, no new name, no
 * rename, no removal. Writes through memory maps count as the others do, since a file is read, not its writes.
 *
 *   files/ID   content       dirs/ID   lines "f ID NAME" and "d ID NAME"       root   the ID of POWER_ROOT
 *
 * An ID is inode number and time of birth: numbers are used again.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static __thread char buffer[1 << 16];

static void die(const char *what) {
    perror(what);
    abort(); /* a test must not go on with half a record */
}

static int identify(int at, const char *name, char *id, size_t size, mode_t *mode) {
    struct statx found;
    int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
    if (statx(at, name, flags, STATX_INO | STATX_BTIME | STATX_TYPE, &found) != 0)
        return -1;
    *mode = found.stx_mode;
    snprintf(id, size, "%llu-%lld.%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec,
             found.stx_btime.tv_nsec);
    return 0;
}

/* Copies [from, to) without its holes. */
static void copy_range(int in, int out, off_t from, off_t to) {
    while (from < to) {
        off_t data = lseek(in, from, SEEK_DATA);
        if (data < 0 || data >= to)
            return;
        off_t hole = lseek(in, data, SEEK_HOLE);
        for (from = data; from < hole && from < to;) {
            size_t want = sizeof buffer;
            if ((off_t)want > to - from)
                want = (size_t)(to - from);
            ssize_t got = pread(in, buffer, want, from);
            if (got <= 0)
                return;
            if (pwrite(out, buffer, (size_t)got, from) != got)
                die("power: write");
            from += got;
        }
    }
}

static void record_folder(int fd, FILE *out) {
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = again < 0 ? NULL : fdopendir(again);
    if (folder == NULL)
        die("power: folder");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char id[64];
        mode_t mode;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (identify(fd, entry->d_name, id, sizeof id, &mode) == 0 && (S_ISREG(mode) || S_ISDIR(mode)))
            fprintf(out, "%c %s %s\n", S_ISDIR(mode) ? 'd' : 'f', id, entry->d_name);
    }
    closedir(folder);
}

/* A record of what a call on `fd` is about to make durable: all of it, or [from, to) over what was durable before. */
struct record {
    int lock;
    char draft[4200], place[4200];
};

static int begin(int fd, off_t from, off_t to, struct record *made) {
    const char *root = getenv("POWER_ROOT"), *shadow = getenv("POWER_SHADOW");
    char link[64], path[4096], id[64];
    mode_t mode;
    made->lock = -1;
    if (root == NULL || shadow == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, root, strlen(root)) != 0 || identify(fd, "", id, sizeof id, &mode) != 0)
        return 0;
    snprintf(made->draft, sizeof made->draft, "%s/lock", shadow);
    made->lock = open(made->draft, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (made->lock < 0 || flock(made->lock, LOCK_EX) != 0)
        die("power: lock");
    snprintf(made->place, sizeof made->place, "%s/%s/%s", shadow, S_ISDIR(mode) ? "dirs" : "files", id);
    snprintf(made->draft, sizeof made->draft, "%s/draft-%d", shadow, getpid());
    if (S_ISDIR(mode)) {
        FILE *out = fopen(made->draft, "we");
        if (out == NULL)
            die("power: draft");
        record_folder(fd, out);
        fclose(out);
        if (strcmp(path, root) == 0) {
            char named[4200];
            snprintf(named, sizeof named, "%s/root", shadow);
            FILE *of_root = fopen(named, "we");
            fputs(id, of_root);
            fclose(of_root);
        }
        return 1;
    }
    int in = open(path, O_RDONLY | O_CLOEXEC);
    int out = open(made->draft, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat now;
    if (in < 0 || out < 0 || fstat(in, &now) != 0) { /* it was removed meanwhile */
        if (in >= 0)
            close(in);
        if (out >= 0)
            close(out);
        close(made->lock);
        return 0;
    }
    if (to >= 0) {
        int before = open(made->place, O_RDONLY | O_CLOEXEC);
        if (before >= 0) {
            copy_range(before, out, 0, now.st_size);
            close(before);
        }
    }
    copy_range(in, out, from, to < 0 ? now.st_size : to);
    if (ftruncate(out, now.st_size) != 0)
        die("power: truncate");
    close(in);
    close(out);
    return 1;
}

static int end(struct record *made, int result) {
    int said = errno;
    if (result == 0 && rename(made->draft, made->place) != 0)
        die("power: rename");
    close(made->lock);
    errno = said;
    return result;
}

#define SYNC(name)                                              \
    int name(int fd) {                                          \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        struct record made;                                     \
        int recorded = begin(fd, 0, -1, &made);                 \
        int result = real(fd);                                  \
        return recorded ? end(&made, result) : result;          \
    }
SYNC(fsync)
SYNC(fdatasync)

/* The file that is mapped at `address`, and where in it that is. */
static int open_mapped(void *address, off_t *offset) {
    char line[4400], path[4096];
    int fd = -1;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps != NULL && fd < 0 && fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, stop, at;
        path[0] = 0;
        if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %4095[^\n]", &start, &stop, &at, path) < 3)
            continue;
        if ((unsigned long)address >= start && (unsigned long)address < stop) {
            *offset = (off_t)(at + ((unsigned long)address - start));
            fd = path[0] == '/' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
            break;
        }
    }
    if (maps != NULL)
        fclose(maps);
    return fd;
}

int msync(void *address, size_t length, int flags) {
    int (*real)(void *, size_t, int) = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    off_t offset = 0;
    int fd = flags & MS_SYNC ? open_mapped(address, &offset) : -1;
    if (fd < 0)
        return real(address, length, flags);
    struct record made;
    int recorded = begin(fd, offset, offset + (off_t)length, &made);
    close(fd);
    int result = real(address, length, flags);
    return recorded ? end(&made, result) : result;
}
