// Writing without a mapping, and barriers: what was written before them is stored, whatever happens
// after.
#include "platform/platform.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace ndarena::platform {

std::uint64_t write_at(int fd, std::uint64_t offset, const void* from,
                       std::uint64_t nbytes) noexcept {
    std::uint64_t done = 0;
    while (done < nbytes) {
        const auto n = ::pwrite(fd, static_cast<const char*>(from) + done, nbytes - done,
                                static_cast<off_t>(offset + done));
        if (n > 0) {
            done += static_cast<std::uint64_t>(n);
        } else if (n == 0 || errno != EINTR) {
            break;
        }
    }
    return done;
}

int sync_file(int fd) noexcept {
    int rc = 0;
    do {
        rc = ::fdatasync(fd);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : errno;
}

int sync_mapped(void* address, std::uint64_t size) noexcept {
    int rc = 0;
    do {
        rc = ::msync(address, size, MS_SYNC);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : errno;
}

int start_writing(void* address, std::uint64_t size) noexcept {
    return ::msync(address, size, MS_ASYNC) == 0 ? 0 : errno;
}

int sync_directory_of(const std::string& path) noexcept {
    if (path.empty()) {
        return 0;
    }
    const unique_fd fd(::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        // A directory that may not be read: its entry was made by someone else.
        return errno == EACCES || errno == ENOENT ? 0 : errno;
    }
    int rc = 0;
    do {
        rc = ::fsync(fd.get());
    } while (rc != 0 && errno == EINTR);
    return rc == 0 || errno == EINVAL ? 0 : errno;
}

}  // namespace ndarena::platform
