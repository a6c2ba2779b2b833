// Directories and file systems of a test, gone with it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace ndarena::test {

// A new directory in TMPDIR, or in the one given, removed with all that is in it.
class temp_dir {
public:
    explicit temp_dir(const char* parent = std::getenv("TMPDIR")) {
        std::string name =
            std::string(parent != nullptr ? parent : "/tmp") + "/ndarena-test-XXXXXX";
        if (::mkdtemp(name.data()) != nullptr) {
            path_ = name;
        }
    }
    temp_dir(const temp_dir&) = delete;
    temp_dir& operator=(const temp_dir&) = delete;
    ~temp_dir() {
        const auto remove_one = [](const char* path, const struct stat*, int, struct FTW*) {
            return ::remove(path);
        };
        if (!path_.empty()) {
            (void)::nftw(path_.c_str(), remove_one, 16, FTW_DEPTH | FTW_PHYS);
        }
    }
    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

private:
    std::string path_;
};

// A small file system mounted for one test; `reason` says why there is none.
class small_filesystem {
public:
    static constexpr const char* tmpfs = "tmpfs";
    static constexpr const char* ext4 = "ext4";

    small_filesystem(const std::string& kind, std::uint64_t bytes) {
        if (::geteuid() != 0) {
            reason_ = "mounting needs root";
            return;
        }
        point_ = place_ / "mnt";
        if (::mkdir(point_.c_str(), 0700) != 0) {
            reason_ = "no directory to mount on";
            return;
        }
        if (kind == tmpfs) {
            const std::string options = "size=" + std::to_string(bytes);
            if (::mount("ndarena-test", point_.c_str(), "tmpfs", 0, options.c_str()) != 0) {
                reason_ = "cannot mount a tmpfs here";
            }
        } else {
            const std::string image = image_ / "image";
            const std::string make = "truncate -s " + std::to_string(bytes) + " " + image +
                                     " && timeout -k 1 20 mkfs.ext4 -q -F -m 0 " + image +
                                     " && timeout -k 1 20 mount -o loop " + image + " " + point_ +
                                     " 2>/dev/null";
            if (std::system(make.c_str()) != 0) {
                reason_ = "cannot make and mount a loop device here";
            }
        }
        mounted_ = reason_.empty();
    }
    small_filesystem(const small_filesystem&) = delete;
    small_filesystem& operator=(const small_filesystem&) = delete;
    ~small_filesystem() {
        if (mounted_) {
            ::umount2(point_.c_str(), MNT_DETACH);
        }
    }
    const std::string& reason() const { return reason_; }
    const std::string& path() const { return point_; }
    std::string operator/(const std::string& name) const { return point_ + "/" + name; }

    std::uint64_t free_bytes() const {
        const int fd = ::open(point_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        (void)::syncfs(fd);  // ext4 counts delayed frees late
        ::close(fd);
        struct statvfs st {};
        return ::statvfs(point_.c_str(), &st) == 0
                   ? static_cast<std::uint64_t>(st.f_bavail) * st.f_frsize
                   : 0;
    }
    // Takes all that is left; remove the file to give it back.
    std::string fill() const {
        std::string name = point_ + "/foreign";
        const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        const std::string block(4096, 'x');
        for (std::size_t size : {std::size_t{4096}, std::size_t{512}, std::size_t{1}}) {
            while (::write(fd, block.data(), size) > 0) {
            }
        }
        ::fsync(fd);
        ::close(fd);
        return name;
    }

private:
    temp_dir place_;
    temp_dir image_{"/dev/shm"};  // in memory: what is tested is ext4, not how busy a disk is
    std::string point_;
    std::string reason_;
    bool mounted_ = false;
};

// Gives this process, for the rest of its life, a /dev/shm of its own: a test
// may then sweep it. Empty, or why that is not possible here.
inline std::string isolate_shared_memory() {
    static const std::string reason = []() -> std::string {
        const bool root = ::geteuid() == 0;
        const std::string user = std::to_string(::geteuid());
        if (::unshare(root ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) {
            return "no mount namespace can be made here";
        }
        if (!root) {
            std::ofstream("/proc/self/setgroups") << "deny";
            std::ofstream("/proc/self/uid_map") << "0 " + user + " 1";
        }
        if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount("ndarena-test", "/dev/shm", "tmpfs", 0, "mode=1777") != 0) {
            return "no /dev/shm can be mounted here";
        }
        return {};
    }();
    return reason;
}

inline std::uint64_t disk_bytes(const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 ? static_cast<std::uint64_t>(st.st_blocks) * 512 : 0;
}
inline std::uint64_t disk_bytes(int fd) {
    struct stat st {};
    return ::fstat(fd, &st) == 0 ? static_cast<std::uint64_t>(st.st_blocks) * 512 : 0;
}

inline void copy_file(const std::string& from, const std::string& to) {
    std::ifstream in(from, std::ios::binary);
    std::ofstream out(to, std::ios::binary);
    out << in.rdbuf();
}

inline void write_file(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
}

// Overwrites part of a file.
inline void poke(const std::string& path, std::uint64_t offset, const void* bytes,
                 std::size_t size) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    (void)!::pwrite(fd, bytes, size, static_cast<off_t>(offset));
    ::close(fd);
}

}  // namespace ndarena::test
