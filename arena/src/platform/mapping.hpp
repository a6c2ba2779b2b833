// Address space: reserving, mapping, committing and giving back pages.
#pragma once

#include "base/base.hpp"

#include <cstddef>
#include <cstdint>
#include <string>

namespace ndarena::platform {

constexpr std::uint64_t page_size = 4096;
constexpr std::uint64_t huge_page_size = std::uint64_t{2} << 20;

// A mapping of its own, unmapped by the destructor. The address is a multiple
// of `huge_page_size`, so offset alignment up to 2 MiB is address alignment.
class mapped_region {
public:
    mapped_region() = default;
    mapped_region(mapped_region&& other) noexcept;
    mapped_region& operator=(mapped_region&& other) noexcept;
    mapped_region(const mapped_region&) = delete;
    mapped_region& operator=(const mapped_region&) = delete;
    ~mapped_region();

    // Maps [0, size) of a file shared; the range may reach beyond its end, so
    // that the file can grow without being mapped anew. Where the system has no
    // address space for `size` it takes `wanted`, and below that halves down to
    // `minimum`: taking all there is would leave nothing for anybody else.
    static result<mapped_region> map_file(int fd, std::uint64_t size, std::uint64_t wanted,
                                          std::uint64_t minimum, bool writable,
                                          const std::string& path);
    // Zero-filled memory of this process, not counted before it is touched.
    static result<mapped_region> map_private(std::uint64_t size);

    std::byte* data() const noexcept { return data_; }
    std::uint64_t size() const noexcept { return size_; }
    void release() noexcept;  // forget it, leave it mapped

private:
    std::byte* data_ = nullptr;
    std::uint64_t size_ = 0;
};

// Each returns 0 or errno.
int populate_for_write(void* address, std::uint64_t size) noexcept;  // MADV_POPULATE_WRITE
int discard_private(void* address, std::uint64_t size) noexcept;     // MADV_DONTNEED: zeros again
int remove_shared(void* address, std::uint64_t size) noexcept;       // MADV_REMOVE: zeros, for all
int exclude_from_dump(void* address, std::uint64_t size) noexcept;
int lock_pages(void* address, std::uint64_t size) noexcept;  // in memory; mlock
int unlock_pages(void* address, std::uint64_t size) noexcept;
int wipe_on_fork(void* address, std::uint64_t size) noexcept;

// Puts a private copy-on-write view of the file over part of an existing
// shared mapping, in place (fork children of private arenas).
int make_private(void* address, std::uint64_t size, int fd, std::uint64_t offset) noexcept;
// And back: the shared view of the file.
int make_shared(void* address, std::uint64_t size, int fd, std::uint64_t offset) noexcept;
// The same for memory without a file: new private memory at the same place,
// the `copy`-ranges (offset, size pairs relative to address) carried over.
struct byte_range {
    std::uint64_t offset;
    std::uint64_t size;
};
// EAGAIN, and a torn copy, if the 8 bytes at offset `witness` changed meanwhile.
int make_private_copy(void* address, std::uint64_t size, const byte_range* copy, std::size_t count,
                      std::uint64_t witness) noexcept;

// Bytes of [address, address + size) that are in memory, by mincore.
std::uint64_t resident_bytes(void* address, std::uint64_t size) noexcept;

// What the kernel says of the mapping that covers an address range.
struct mapping_info {
    bool found = false;   // one mapping covers the whole range
    bool shared = false;  // MAP_SHARED
    std::uint64_t file_offset = 0;
    std::uint64_t device = 0;  // 0 with inode 0: anonymous
    std::uint64_t inode = 0;
    std::string path;
};
mapping_info describe_mapping(const void* address, std::uint64_t size);

}  // namespace ndarena::platform
