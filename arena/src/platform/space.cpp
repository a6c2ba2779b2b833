// Reserving and giving back the blocks of a file.
#include "platform/platform.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

namespace ndarena::platform {
namespace {

// One call of at most this size, so that a signal costs at most one step.
constexpr std::uint64_t fallocate_step = std::uint64_t{64} << 20;

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#ifndef ZFS_SUPER_MAGIC
#define ZFS_SUPER_MAGIC 0x2fc12fc1
#endif
#ifndef BCACHEFS_SUPER_MAGIC
#define BCACHEFS_SUPER_MAGIC 0xca451a4e
#endif

bool is_known_filesystem(unsigned long magic) noexcept {
    switch (magic) {
        case EXT4_SUPER_MAGIC:
        case XFS_SUPER_MAGIC:
        case BTRFS_SUPER_MAGIC:
        case F2FS_SUPER_MAGIC:
        case TMPFS_MAGIC:
        case HUGETLBFS_MAGIC:
        case OVERLAYFS_SUPER_MAGIC:
        case ZFS_SUPER_MAGIC:
        case BCACHEFS_SUPER_MAGIC:
            return true;
        default:
            return false;
    }
}

int fallocate_all(int fd, int mode, std::uint64_t offset, std::uint64_t size) noexcept {
    while (size > 0) {
        const std::uint64_t step = std::min(size, fallocate_step);
        if (::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(step)) != 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        offset += step;
        size -= step;
    }
    return 0;
}

}  // namespace

int allocate_range(int fd, std::uint64_t offset, std::uint64_t size, bool keep_size) noexcept {
    return fallocate_all(fd, keep_size ? FALLOC_FL_KEEP_SIZE : 0, offset, size);
}

int punch_range(int fd, std::uint64_t offset, std::uint64_t size) noexcept {
    return fallocate_all(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

std::uint64_t free_space(int fd) noexcept {
    struct statvfs st {};
    if (::fstatvfs(fd, &st) != 0) {
        return 0;
    }
    return static_cast<std::uint64_t>(st.f_bavail) * st.f_frsize;
}

bool is_btrfs(int fd) noexcept {
    struct statfs fs {};
    return ::fstatfs(fd, &fs) == 0 && static_cast<unsigned long>(fs.f_type) == BTRFS_SUPER_MAGIC;
}

bool is_memory_backed(int fd) noexcept {
    struct statfs fs {};
    return ::fstatfs(fd, &fs) == 0 && (static_cast<unsigned long>(fs.f_type) == TMPFS_MAGIC ||
                                       static_cast<unsigned long>(fs.f_type) == HUGETLBFS_MAGIC);
}

result<void> require_usable_filesystem(int fd, const std::string& path) {
    struct stat st {};
    if (::fstat(fd, &st) != 0) {
        return system_error("cannot look at the file", errno, path);
    }
    if (!S_ISREG(st.st_mode)) {
        return error{errc::format, 0, "not an arena: it is not a regular file", path};
    }
    struct statfs fs {};
    if (::fstatfs(fd, &fs) != 0) {
        return system_error("cannot look at the file system", errno, path);
    }
    if (!is_known_filesystem(static_cast<unsigned long>(fs.f_type))) {
        return error{errc::unsupported, 0,
                     "this file system is not known to keep shared mappings and locks coherent "
                     "(network file systems do not); put the arena on a local disk or tmpfs",
                     path};
    }
    return {};
}

}  // namespace ndarena::platform
