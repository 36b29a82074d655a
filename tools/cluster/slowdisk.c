/* A disk that is slow or fails, on demand: a FUSE file system of one file, mounted on that very file.
 *
 * slowdisk FILE mounts, prints "mounted" and takes commands from standard input: "delay MS" holds each
 * write for so long, without holding back others; "fail" answers writes with EIO; "ok" ends both. It
 * unmounts at the end of its input. Reads and writes go on to the file as they came, with O_DIRECT, and
 * a sync is a sync: what the broker does with io_uring and RWF_DSYNC keeps its meaning. It speaks the
 * kernel's protocol itself, which is less than a library is to install.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { THREADS = 32, PAYLOAD_MAX = 1 << 20, PAGE = 4096 };
enum { WRITE_HEADER = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) };

static int file, device;
static atomic_int delay_ms, failing;

static void must(int holds, const char *what) {
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static void reply(__u64 unique, int error, const void *body, size_t size) {
    struct fuse_out_header out = {sizeof out + size, -error, unique};
    struct iovec parts[] = {{&out, sizeof out}, {(void *)body, size}};
    /* ENOENT: whoever asked was killed meanwhile. */
    must(writev(device, parts, 2) >= 0 || errno == ENOENT, "reply");
}

static struct fuse_attr attributes(void) {
    struct stat found;
    must(fstat(file, &found) == 0, "fstat");
    return (struct fuse_attr){.ino = FUSE_ROOT_ID, .size = found.st_size, .blocks = found.st_blocks,
                              .mode = found.st_mode, .nlink = 1, .uid = found.st_uid,
                              .gid = found.st_gid, .blksize = PAGE};
}

static void handle_write(__u64 unique, const struct fuse_write_in *in, const void *payload) {
    int wait = delay_ms;
    if (wait > 0) usleep(wait * 1000);
    if (failing) return reply(unique, EIO, NULL, 0);
    struct iovec part = {(void *)payload, in->size};
    ssize_t written = pwritev2(file, &part, 1, in->offset, in->flags & O_DSYNC ? RWF_DSYNC : 0);
    struct fuse_write_out out = {.size = written};
    written < 0 ? reply(unique, errno, NULL, 0) : reply(unique, 0, &out, sizeof out);
}

static void handle_read(__u64 unique, const struct fuse_read_in *in, void *space) {
    ssize_t found = pread(file, space, in->size, in->offset);
    found < 0 ? reply(unique, errno, NULL, 0) : reply(unique, 0, space, found);
}

static void handle_init(__u64 unique, const struct fuse_init_in *in) {
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = PAYLOAD_MAX,
        .flags = in->flags & (FUSE_ASYNC_DIO | FUSE_BIG_WRITES | FUSE_MAX_PAGES),
        .max_pages = PAYLOAD_MAX / PAGE, .max_background = THREADS, .congestion_threshold = THREADS};
    reply(unique, 0, &out, sizeof out);
}

static void handle(const struct fuse_in_header *in, void *space) {
    const void *body = in + 1;
    struct fuse_attr_out attr = {.attr_valid = 1};
    /* Several writes at once, as on a disk. */
    struct fuse_open_out open = {.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES};
    struct fuse_statfs_out file_system = {.st.bsize = PAGE, .st.namelen = 255};
    switch (in->opcode) {
        case FUSE_INIT: return handle_init(in->unique, body);
        case FUSE_WRITE: return handle_write(in->unique, body, (const char *)in + WRITE_HEADER);
        case FUSE_READ: return handle_read(in->unique, body, space);
        case FUSE_GETATTR:
            attr.attr = attributes();
            return reply(in->unique, 0, &attr, sizeof attr);
        case FUSE_STATFS: return reply(in->unique, 0, &file_system, sizeof file_system);
        case FUSE_OPEN: return reply(in->unique, 0, &open, sizeof open);
        case FUSE_FSYNC: return reply(in->unique, fdatasync(file) ? errno : 0, NULL, 0);
        case FUSE_FLUSH:
        case FUSE_RELEASE: return reply(in->unique, 0, NULL, 0);
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT: return;
        default: return reply(in->unique, ENOSYS, NULL, 0);
    }
}

static void *serve(void *unused) {
    /* What follows a write's header is aligned for O_DIRECT. */
    char *request = aligned_alloc(PAGE, PAGE + PAYLOAD_MAX), *space = aligned_alloc(PAGE, PAYLOAD_MAX);
    must(request && space, "memory");
    request += PAGE - WRITE_HEADER;
    for (;;) {
        ssize_t size = read(device, request, WRITE_HEADER + PAYLOAD_MAX);
        if (size < 0 && errno == ENODEV) exit(0);
        if (size < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
        must(size >= (ssize_t)sizeof(struct fuse_in_header), "request");
        handle((const struct fuse_in_header *)request, space);
    }
    return unused;
}

int main(int count, char **arguments) {
    must(count == 2, "usage: slowdisk FILE");
    const char *path = arguments[1];
    char options[128], line[64];
    file = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    must(file >= 0 && device >= 0, "open");
    snprintf(options, sizeof options, "fd=%d,rootmode=100600,user_id=0,group_id=0,max_read=%d", device,
             PAYLOAD_MAX);
    must(mount("slowdisk", path, "fuse", 0, options) == 0, "mount");
    for (int each = 0; each < THREADS; each++) {
        pthread_t thread;
        must(pthread_create(&thread, NULL, serve, NULL) == 0, "thread");
    }
    puts("mounted");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int wait = 0;
        failing = strcmp(line, "fail\n") == 0;
        delay_ms = sscanf(line, "delay %d", &wait) == 1 ? wait : 0;
        puts("done");
        fflush(stdout);
    }
    umount2(path, MNT_DETACH);
    return 0;
}
