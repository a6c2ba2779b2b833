#include "platform/platform.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include <sys/mman.h>
#include <sys/sysmacros.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ndarena::platform {
namespace {

constexpr int no_file = -1;

// Maps at an address that is a multiple of huge_page_size: takes more address
// space than needed, maps inside it and gives the edges back.
void* map_aligned(std::uint64_t size, int protection, int flags, int fd) noexcept {
    const std::uint64_t reserve = size + huge_page_size;
    void* raw = ::mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       no_file, 0);
    if (raw == MAP_FAILED) {
        return MAP_FAILED;
    }
    const auto start = reinterpret_cast<std::uintptr_t>(raw);
    const auto wanted = base::align_up(start, huge_page_size);
    void* mapped =
        ::mmap(reinterpret_cast<void*>(wanted), size, protection, flags | MAP_FIXED, fd, 0);
    const int saved = errno;
    if (mapped == MAP_FAILED) {
        ::munmap(raw, reserve);
        errno = saved;
        return MAP_FAILED;
    }
    if (wanted > start) {
        ::munmap(raw, wanted - start);
    }
    if (start + reserve > wanted + size) {
        ::munmap(reinterpret_cast<void*>(wanted + size), start + reserve - (wanted + size));
    }
    return mapped;
}

int advise(void* address, std::uint64_t size, int advice) noexcept {
    int rc = 0;
    do {
        rc = ::madvise(address, size, advice);
    } while (rc != 0 && (errno == EINTR || errno == EAGAIN));
    return rc == 0 ? 0 : errno;
}

}  // namespace

mapped_region::mapped_region(mapped_region&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

mapped_region& mapped_region::operator=(mapped_region&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

mapped_region::~mapped_region() {
    if (data_ != nullptr) {
        ::munmap(data_, size_);
    }
}

void mapped_region::release() noexcept {
    data_ = nullptr;
    size_ = 0;
}

result<mapped_region> mapped_region::map_file(int fd, std::uint64_t size, std::uint64_t wanted,
                                              std::uint64_t minimum, bool writable,
                                              const std::string& path) {
    const int protection = PROT_READ | (writable ? PROT_WRITE : 0);
    minimum = base::align_up(minimum, page_size);
    size = std::max(base::align_up(size, page_size), minimum);
    for (;;) {
        void* p = map_aligned(size, protection, MAP_SHARED | MAP_NORESERVE, fd);
        if (p != MAP_FAILED) {
            mapped_region region;
            region.data_ = static_cast<std::byte*>(p);
            region.size_ = size;
            return region;
        }
        const bool too_large = errno == ENOMEM || errno == EFBIG || errno == EOVERFLOW;
        if (!too_large || size == minimum) {
            return system_error("cannot map " + base::human_size(size) + " of the arena", errno,
                                path);
        }
        const std::uint64_t next = size > wanted ? wanted : size / 2;
        size = std::max(base::align_up(next, page_size), minimum);
    }
}

result<mapped_region> mapped_region::map_private(std::uint64_t size) {
    size = base::align_up(size, page_size);
    void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, no_file, 0);
    if (p == MAP_FAILED) {
        return system_error("cannot reserve memory", errno, {});
    }
    mapped_region region;
    region.data_ = static_cast<std::byte*>(p);
    region.size_ = size;
    return region;
}

int populate_for_write(void* address, std::uint64_t size) noexcept {
    return advise(address, size, MADV_POPULATE_WRITE);
}
int discard_private(void* address, std::uint64_t size) noexcept {
    return advise(address, size, MADV_DONTNEED);
}
int remove_shared(void* address, std::uint64_t size) noexcept {
    return advise(address, size, MADV_REMOVE);
}
int exclude_from_dump(void* address, std::uint64_t size) noexcept {
    return advise(address, size, MADV_DONTDUMP);
}
int lock_pages(void* address, std::uint64_t size) noexcept {
    return ::mlock(address, size) == 0 ? 0 : errno;
}
int unlock_pages(void* address, std::uint64_t size) noexcept {
    return ::munlock(address, size) == 0 ? 0 : errno;
}
int wipe_on_fork(void* address, std::uint64_t size) noexcept {
    return advise(address, size, MADV_WIPEONFORK);
}

int make_private(void* address, std::uint64_t size, int fd, std::uint64_t offset) noexcept {
    void* p = ::mmap(address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                     fd, static_cast<off_t>(offset));
    return p == MAP_FAILED ? errno : 0;
}

int make_shared(void* address, std::uint64_t size, int fd, std::uint64_t offset) noexcept {
    void* p = ::mmap(address, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
                     fd, static_cast<off_t>(offset));
    return p == MAP_FAILED ? errno : 0;
}

int make_private_copy(void* address, std::uint64_t size, const byte_range* copy, std::size_t count,
                      std::uint64_t witness) noexcept {
    // A second view of the shared pages elsewhere (old_size 0 duplicates a
    // shared mapping), then private memory over the old place.
    void* source = ::mremap(address, 0, size, MREMAP_MAYMOVE);
    if (source == MAP_FAILED) {
        return errno;
    }
    void* p = ::mmap(address, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, no_file, 0);
    if (p == MAP_FAILED) {
        const int saved = errno;
        ::munmap(source, size);
        return saved;
    }
    for (std::size_t i = 0; i < count; ++i) {
        std::memcpy(static_cast<std::byte*>(address) + copy[i].offset,
                    static_cast<std::byte*>(source) + copy[i].offset, copy[i].size);
    }
    const bool whole =
        std::memcmp(static_cast<std::byte*>(address) + witness,
                    static_cast<std::byte*>(source) + witness, sizeof(std::uint64_t)) == 0;
    ::munmap(source, size);
    return whole ? 0 : EAGAIN;
}

std::uint64_t resident_bytes(void* address, std::uint64_t size) noexcept {
    static constexpr std::size_t pages_per_call = 4096;
    std::array<unsigned char, pages_per_call> in_core{};
    auto start = base::align_down(reinterpret_cast<std::uintptr_t>(address), page_size);
    const auto end = base::align_up(reinterpret_cast<std::uintptr_t>(address) + size, page_size);
    std::uint64_t pages = 0;
    while (start < end) {
        const std::uint64_t step = std::min<std::uint64_t>(end - start, pages_per_call * page_size);
        if (::mincore(reinterpret_cast<void*>(start), step, in_core.data()) != 0) {
            break;
        }
        for (std::size_t i = 0; i < step / page_size; ++i) {
            pages += in_core[i] & 1U;
        }
        start += step;
    }
    return pages * page_size;
}

mapping_info describe_mapping(const void* address, std::uint64_t size) {
    mapping_info info;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> maps(std::fopen("/proc/self/maps", "re"),
                                                               &std::fclose);
    if (!maps) {
        return info;
    }
    // Neighbouring entries of one mapping (advice splits them) count as one.
    const auto first = reinterpret_cast<std::uintptr_t>(address);
    std::uintptr_t covered = first;
    std::array<char, 4608> line{};
    while (std::fgets(line.data(), static_cast<int>(line.size()), maps.get()) != nullptr) {
        std::uint64_t lo = 0;
        std::uint64_t hi = 0;
        std::uint64_t offset = 0;
        std::uint64_t inode = 0;
        unsigned major_id = 0;
        unsigned minor_id = 0;
        std::array<char, 5> permissions{};
        int path_at = 0;
        if (std::sscanf(line.data(), "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n",
                        &lo, &hi, permissions.data(), &offset, &major_id, &minor_id, &inode,
                        &path_at) < 7 ||
            hi <= covered) {
            continue;
        }
        if (lo > covered) {
            break;
        }
        const bool shared = permissions[3] == 's';
        const std::uint64_t device = makedev(major_id, minor_id);
        const std::uint64_t here = offset + (covered - lo);
        if (covered == first) {
            info.shared = shared;
            info.file_offset = here;
            info.device = device;
            info.inode = inode;
            info.path = line.data() + path_at;
            while (!info.path.empty() && info.path.back() == '\n') {
                info.path.pop_back();
            }
        } else if (shared != info.shared || device != info.device || inode != info.inode ||
                   (inode != 0 && here != info.file_offset + (covered - first))) {
            break;
        }
        covered = hi;
        if (covered >= first + size) {
            info.found = true;
            break;
        }
    }
    return info;
}

}  // namespace ndarena::platform
