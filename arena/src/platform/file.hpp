// Files: opening, creating without a half-made file ever being visible,
// space, identity. All descriptors are O_CLOEXEC and numbered high, where
// daemons' "close everything from 3 up to n" habits rarely reach.
#pragma once

#include "platform/unique_fd.hpp"

#include "base/base.hpp"

#include <cstdint>
#include <string>

namespace ndarena::platform {

// Error of a failed system call: `what` in words, errno, path, advice.
error system_error(const std::string& what, int os_errno, const std::string& path);

struct file_id {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    bool operator==(const file_id& o) const noexcept {
        return device == o.device && inode == o.inode;
    }
    bool operator!=(const file_id& o) const noexcept { return !(*this == o); }
};

result<unique_fd> open_file(const std::string& path, bool writable, bool follow_links);

// A file without a name in `dir`. Where the file system has no O_TMPFILE it
// gets a random name that the caller removes or renames: `temporary_name`.
struct nameless_file {
    unique_fd fd;
    std::string temporary_name;  // empty: truly nameless
};
result<nameless_file> create_nameless(const std::string& dir, unsigned perm);

// Gives the file its name in one step. `replace` puts it in the place of an
// existing file, whose holders keep the old inode; otherwise errc::exists.
result<void> give_name(nameless_file& file, const std::string& path, bool replace);

// A new open file description of the same file (for locks that must not be
// shared with the old one). Needs /proc.
result<unique_fd> reopen(int fd, bool writable);

result<file_id> identify(int fd, const std::string& path);
bool has_name(int fd) noexcept;  // some directory lists it
bool is_same_file(int fd, const file_id& id) noexcept;
result<std::uint64_t> file_size(int fd, const std::string& path);
result<void> set_file_size(int fd, std::uint64_t size, const std::string& path);

// Reserves blocks for [offset, offset + size). Returns 0 or errno. The file
// grows to cover the range unless `keep_size`. EINTR is retried, large ranges
// go in steps.
int allocate_range(int fd, std::uint64_t offset, std::uint64_t size, bool keep_size) noexcept;
// Gives the blocks of a range back; it reads as zeros. Returns 0 or errno.
int punch_range(int fd, std::uint64_t offset, std::uint64_t size) noexcept;

// Writes as many of the bytes as the system takes; returns how many.
std::uint64_t write_at(int fd, std::uint64_t offset, const void* from,
                       std::uint64_t nbytes) noexcept;

// Barriers; each returns 0 or errno. `sync_file` waits until the file's data is
// stored, pages that were written through mappings included, `sync_mapped` until
// that of a mapped range is, which begins with a page; the directory's is about
// the file's name.
int sync_file(int fd) noexcept;
int sync_mapped(void* address, std::uint64_t size) noexcept;
int sync_directory_of(const std::string& path) noexcept;
// Asks for writing to begin and waits for nothing: no barrier.
int start_writing(void* address, std::uint64_t size) noexcept;

// Bytes that an unprivileged user may still take on the file system of `fd`.
std::uint64_t free_space(int fd) noexcept;

// The file's blocks are memory (tmpfs, memfd): reserving them means zeroing.
bool is_memory_backed(int fd) noexcept;
bool is_btrfs(int fd) noexcept;

// Refuses what cannot carry a shared writable mapping with locks: network
// and unknown file systems, anything but a regular file.
result<void> require_usable_filesystem(int fd, const std::string& path);

// The path with its links followed, or as it is if there is nothing there yet;
// errc::invalid if there is something other than a regular file.
result<std::string> regular_target(const std::string& path);

std::string directory_of(const std::string& path);
std::string absolute_path(const std::string& path);
// 32 hexadecimal digits from the kernel's random source.
std::string random_name();
std::uint64_t random_u64() noexcept;

}  // namespace ndarena::platform
