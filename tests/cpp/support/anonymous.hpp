// Anonymous memory for a test.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/mman.h>

namespace ndarena::test {

// Zeroed pages, nothing of them in memory before they are touched.
class anonymous_memory {
public:
    explicit anonymous_memory(std::size_t size, bool shared = false)
        : size_(size),
          data_(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                       0)) {}
    anonymous_memory(const anonymous_memory&) = delete;
    anonymous_memory& operator=(const anonymous_memory&) = delete;
    ~anonymous_memory() { ::munmap(data_, size_); }
    std::byte* data() const { return static_cast<std::byte*>(data_); }
    std::size_t size() const { return size_; }

private:
    std::size_t size_;
    void* data_;
};

}  // namespace ndarena::test
