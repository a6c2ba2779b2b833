// Where the arenas of a fuzz target lie: memory, and files without a name, of
// which nothing is left behind whatever happens to the process.
#pragma once

#include "heap/heap.hpp"

#include "input.hpp"

#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace ndarena::fuzz {

// Pages of anonymous memory or of a file, unmapped with it.
class pages {
public:
    pages(std::uint64_t size, int flags, int fd)
        : size_(size), data_(::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0)) {
        require(data_ != MAP_FAILED, "the machine has memory");
    }
    pages(pages&& other) noexcept
        : size_(other.size_), data_(std::exchange(other.data_, nullptr)) {}
    pages(const pages&) = delete;
    pages& operator=(const pages&) = delete;
    pages& operator=(pages&&) = delete;
    ~pages() {
        if (data_ != nullptr) {
            ::munmap(data_, size_);
        }
    }
    std::byte* data() const { return static_cast<std::byte*>(data_); }
    std::uint64_t size() const { return size_; }

private:
    static constexpr std::uintptr_t low = std::uintptr_t{1} << 45;
    std::uint64_t size_;
    void* data_;
};

// An empty file in memory; `path` leads to it as long as this process lives.
class memory_file {
public:
    explicit memory_file(std::uint64_t size) : fd_(::memfd_create("ndarena-fuzz", MFD_CLOEXEC)) {
        require(fd_ && ::ftruncate(fd_.get(), static_cast<off_t>(size)) == 0,
                "the machine makes files in memory");
    }
    explicit memory_file(platform::unique_fd fd) : fd_(std::move(fd)) {}
    int fd() const { return fd_.get(); }
    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

private:
    platform::unique_fd fd_;
};

inline segment::segment_options over(const pages& memory) {
    segment::segment_options o;
    o.kind = segment::segment_kind::buffer;
    o.buffer = memory.data();
    o.buffer_size = memory.size();
    return o;
}

inline segment::segment_options in_file(const std::string& path, segment::open_mode mode,
                                        std::uint64_t capacity = 0) {
    segment::segment_options o;
    o.kind = segment::segment_kind::file;
    o.mode = mode;
    o.path = path;
    o.capacity = capacity;
    return o;
}

// A new arena in a file of its own, whose name is gone again.
struct unnamed_arena {
    memory_file file;
    std::shared_ptr<heap::heap> h;

    static unnamed_arena create(std::uint64_t capacity, std::uint64_t alignment = 0) {
        std::string folder = "/dev/shm/ndarena-fuzz-XXXXXX";
        if (::mkdtemp(folder.data()) == nullptr) {
            folder = "/tmp/ndarena-fuzz-XXXXXX";
            require(::mkdtemp(folder.data()) != nullptr, "the machine has a folder to write in");
        }
        const std::string path = folder + "/arena";
        auto options = in_file(path, segment::open_mode::exclusive, capacity);
        options.alignment = alignment;
        auto opened = heap::heap::open(options);
        memory_file file(platform::unique_fd(::open(path.c_str(), O_RDWR | O_CLOEXEC)));
        ::unlink(path.c_str());
        ::rmdir(folder.c_str());
        require(bool(opened), "an arena can be made",
                opened ? std::string{} : opened.err().message);
        return {std::move(file), std::move(*opened)};
    }
};

}  // namespace ndarena::fuzz
