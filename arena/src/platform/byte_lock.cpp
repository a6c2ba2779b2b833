#include "platform/platform.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

namespace ndarena::platform {
namespace {

struct flock range_lock(short type, std::uint64_t offset, std::uint64_t size) noexcept {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(offset);
    lock.l_len = static_cast<off_t>(size);
    return lock;
}

lock_answer try_lock(int fd, short type, std::uint64_t offset) noexcept {
    struct flock lock = range_lock(type, offset, 1);
    while (::fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
            return lock_answer::busy;
        }
        if (errno != EINTR) {
            return lock_answer::failed;
        }
    }
    return lock_answer::taken;
}

}  // namespace

lock_answer try_lock_byte(int fd, std::uint64_t offset) noexcept {
    return try_lock(fd, F_WRLCK, offset);
}

lock_answer try_share_byte(int fd, std::uint64_t offset) noexcept {
    return try_lock(fd, F_RDLCK, offset);
}

void unlock_byte(int fd, std::uint64_t offset) noexcept {
    struct flock lock = range_lock(F_UNLCK, offset, 1);
    while (::fcntl(fd, F_OFD_SETLK, &lock) != 0 && errno == EINTR) {
    }
}

bool is_locked_by_other(int fd, std::uint64_t offset, std::uint64_t size) noexcept {
    struct flock lock = range_lock(F_WRLCK, offset, size);
    while (::fcntl(fd, F_OFD_GETLK, &lock) != 0) {
        if (errno != EINTR) {
            return true;
        }
    }
    return lock.l_type != F_UNLCK;
}

bool find_lock_of_other(int fd, std::uint64_t offset, std::uint64_t& at) noexcept {
    struct flock lock = range_lock(F_WRLCK, offset, 0);  // 0: to the end
    while (::fcntl(fd, F_OFD_GETLK, &lock) != 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    at = std::max(offset, static_cast<std::uint64_t>(lock.l_start));
    return lock.l_type != F_UNLCK;
}

}  // namespace ndarena::platform
