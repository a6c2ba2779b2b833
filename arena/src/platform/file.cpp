#include "platform/platform.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ndarena::platform {
namespace {

constexpr int high_descriptor = 200;

// Moves a descriptor out of the low numbers; keeps it where that fails.
unique_fd raise_number(int fd) noexcept {
    if (fd < 0 || fd >= high_descriptor) {
        return unique_fd(fd);
    }
    const int high = ::fcntl(fd, F_DUPFD_CLOEXEC, high_descriptor);
    if (high < 0) {
        return unique_fd(fd);
    }
    ::close(fd);
    return unique_fd(high);
}

std::string proc_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

void unique_fd::reset(int fd) noexcept {
    if (fd_ >= 0) {
        const int saved = errno;
        ::close(fd_);
        errno = saved;
    }
    fd_ = fd;
}

error system_error(const std::string& what, int os_errno, const std::string& path) {
    errc code = errc::os;
    std::string advice;
    switch (os_errno) {
        case ENOENT:
            code = errc::not_found;
            advice = "; create it with mode 'a' or 'w', or correct the path";
            break;
        case EEXIST:
            code = errc::exists;
            advice = "; open it with mode 'a' or 'r+', or replace it with mode 'w'";
            break;
        case EACCES:
        case EPERM:
        case EROFS:
            code = errc::permission;
            break;
        case ENOSPC:
        case EDQUOT:
            code = errc::no_memory;
            advice = "; free space on the file system or use another directory";
            break;
        case ENOMEM:
            code = errc::no_memory;
            break;
        case EMFILE:
        case ENFILE:
            advice = "; too many open files, raise the limit (ulimit -n)";
            break;
        default:
            break;
    }
    return {code, os_errno, what + ": " + std::strerror(os_errno) + advice, path};
}

result<unique_fd> open_file(const std::string& path, bool writable, bool follow_links) {
    const int flags = (writable ? O_RDWR : O_RDONLY) | (follow_links ? 0 : O_NOFOLLOW) | O_CLOEXEC |
                      O_NOCTTY | O_NONBLOCK;
    int fd = -1;
    do {
        fd = ::open(path.c_str(), flags);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return system_error("cannot open the arena", errno, path);
    }
    return raise_number(fd);
}

result<nameless_file> create_nameless(const std::string& dir, unsigned perm) {
    nameless_file file;
    int fd = ::open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, perm);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        file.temporary_name = dir + "/.ndarena-" + random_name();
        fd = ::open(file.temporary_name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    perm);
    }
    if (fd < 0) {
        error e = system_error("cannot create a file in this directory", errno, dir);
        if (e.code == errc::not_found) {
            e.message = "cannot create a file: the directory does not exist";
        }
        return e;
    }
    file.fd = raise_number(fd);
    return file;
}

result<void> give_name(nameless_file& file, const std::string& path, bool replace) {
    std::string from = file.temporary_name;
    if (from.empty()) {
        // linkat cannot replace: an existing file is replaced by renaming.
        const std::string target =
            replace ? directory_of(path) + "/.ndarena-" + random_name() : path;
        if (::linkat(AT_FDCWD, proc_path(file.fd.get()).c_str(), AT_FDCWD, target.c_str(),
                     AT_SYMLINK_FOLLOW) != 0) {
            return system_error("cannot create the arena", errno, path);
        }
        if (!replace) {
            return {};
        }
        from = target;
    } else if (!replace) {
        if (::link(from.c_str(), path.c_str()) != 0) {
            return system_error("cannot create the arena", errno, path);
        }
        ::unlink(from.c_str());
        file.temporary_name.clear();
        return {};
    }
    if (::rename(from.c_str(), path.c_str()) != 0) {
        const int saved = errno;
        ::unlink(from.c_str());
        return system_error("cannot put the new arena in its place", saved, path);
    }
    file.temporary_name.clear();
    return {};
}

result<unique_fd> reopen(int fd, bool writable) {
    const int copy =
        ::open(proc_path(fd).c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY);
    if (copy < 0) {
        return system_error("cannot reopen the arena's file through /proc", errno, {});
    }
    return raise_number(copy);
}

result<file_id> identify(int fd, const std::string& path) {
    struct stat st {};
    if (::fstat(fd, &st) != 0) {
        return system_error("cannot look at the file", errno, path);
    }
    return file_id{st.st_dev, st.st_ino};
}

bool has_name(int fd) noexcept {
    struct stat st {};
    return ::fstat(fd, &st) == 0 && st.st_nlink != 0;
}

bool is_same_file(int fd, const file_id& id) noexcept {
    struct stat st {};
    return ::fstat(fd, &st) == 0 && st.st_dev == id.device && st.st_ino == id.inode;
}

result<std::uint64_t> file_size(int fd, const std::string& path) {
    struct stat st {};
    if (::fstat(fd, &st) != 0) {
        return system_error("cannot look at the file", errno, path);
    }
    return static_cast<std::uint64_t>(st.st_size);
}

result<void> set_file_size(int fd, std::uint64_t size, const std::string& path) {
    int rc = 0;
    do {
        rc = ::ftruncate(fd, static_cast<off_t>(size));
    } while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        return system_error("cannot set the size of the file", errno, path);
    }
    return {};
}

result<std::string> regular_target(const std::string& path) {
    std::array<char, PATH_MAX> resolved{};
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0 || ::realpath(path.c_str(), resolved.data()) == nullptr) {
        return path;
    }
    if (!S_ISREG(st.st_mode)) {
        return error{errc::invalid, 0,
                     "this is not a regular file and will not be replaced; choose another path",
                     path};
    }
    return std::string(resolved.data());
}

std::string directory_of(const std::string& path) {
    const auto slash = path.find_last_of('/');
    if (slash == std::string::npos) {
        return ".";
    }
    return slash == 0 ? "/" : path.substr(0, slash);
}

std::string absolute_path(const std::string& path) {
    std::array<char, PATH_MAX> resolved{};
    const std::string dir = directory_of(path);
    if (::realpath(dir.c_str(), resolved.data()) == nullptr) {
        return path;
    }
    const auto slash = path.find_last_of('/');
    const std::string leaf = slash == std::string::npos ? path : path.substr(slash + 1);
    const std::string base = resolved.data();
    return base == "/" ? base + leaf : base + "/" + leaf;
}

std::uint64_t random_u64() noexcept {
    std::uint64_t value = 0;
    while (::getrandom(&value, sizeof value, 0) != sizeof value) {
    }
    return value;
}

std::string random_name() {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "%016llx%016llx",
                  static_cast<unsigned long long>(random_u64()),
                  static_cast<unsigned long long>(random_u64()));
    return text.data();
}

}  // namespace ndarena::platform
