// What a trace is replayed with. Every allocator is reached the same way: one
// call through a pointer or into a library.
#pragma once

#include "heap/heap.hpp"

#include <ndarena/arena.hpp>

#include <boost/interprocess/indexes/null_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>

#include <cstddef>
#include <cstdlib>
#include <string>

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

namespace ndarena::bench {

constexpr std::size_t arena_bytes = std::size_t{4} << 30;
constexpr std::size_t wide = 64;

// Anonymous memory for the allocators that live inside a buffer.
class buffer {
public:
    buffer()
        : data_(::mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
    ~buffer() {
        if (ok()) {
            ::munmap(data_, arena_bytes);
        }
    }
    buffer(const buffer&) = delete;
    buffer& operator=(const buffer&) = delete;
    bool ok() const noexcept { return data_ != MAP_FAILED; }
    void* data() const noexcept { return data_; }

private:
    void* data_;
};

// Locks, undo log, ownership rows and pointer map on: as programs get it.
class ours {
public:
    explicit ours(arena a) : arena_(std::move(a)) {}
    void* allocate(std::size_t n) noexcept { return arena_.allocate(n); }
    void release(void* p) noexcept { (void)arena_.deallocate(p); }
    std::byte* start() const noexcept { return arena_.implementation()->base(); }

private:
    arena arena_;
};

// A malloc of some library, plain as NumPy calls it or with an alignment.
class malloc_like {
public:
    using malloc_type = void* (*)(std::size_t);
    using free_type = void (*)(void*);
    using memalign_type = int (*)(void**, std::size_t, std::size_t);

    // An empty `library` is this process's own C library.
    std::string load(const char* library, const char* prefix, std::size_t alignment) {
        alignment_ = alignment;
        if (*library == '\0') {
            malloc_ = &std::malloc;
            free_ = &std::free;
            memalign_ = &::posix_memalign;
            return {};
        }
        // Its malloc must not take the place of this process's, nor use it.
        void* handle = ::dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
        if (handle == nullptr) {
            return ::dlerror();
        }
        const std::string p = prefix;
        malloc_ = reinterpret_cast<malloc_type>(::dlsym(handle, (p + "malloc").c_str()));
        free_ = reinterpret_cast<free_type>(::dlsym(handle, (p + "free").c_str()));
        memalign_ =
            reinterpret_cast<memalign_type>(::dlsym(handle, (p + "posix_memalign").c_str()));
        return malloc_ != nullptr && free_ != nullptr && memalign_ != nullptr
                   ? std::string()
                   : std::string("lacks malloc, free or posix_memalign");
    }
    void* allocate(std::size_t n) noexcept {
        if (alignment_ == 0) {
            return malloc_(n);
        }
        void* p = nullptr;
        return memalign_(&p, alignment_, n) == 0 ? p : nullptr;
    }
    void release(void* p) noexcept { free_(p); }
    std::byte* start() const noexcept { return nullptr; }

private:
    malloc_type malloc_ = nullptr;
    free_type free_ = nullptr;
    memalign_type memalign_ = nullptr;
    std::size_t alignment_ = 0;
};

// Boost.Interprocess's best fit, with its mutex as shared segments have it.
class best_fit {
public:
    best_fit(void* memory, std::size_t alignment)
        : alignment_(alignment),
          start_(static_cast<std::byte*>(memory)),
          manager_(boost::interprocess::create_only, memory, arena_bytes) {}
    void* allocate(std::size_t n) noexcept {
        return alignment_ == 0 ? manager_.allocate(n, std::nothrow)
                               : manager_.allocate_aligned(n, alignment_, std::nothrow);
    }
    void release(void* p) noexcept { manager_.deallocate(p); }
    std::byte* start() const noexcept { return start_; }

private:
    std::size_t alignment_;
    std::byte* start_;
    boost::interprocess::basic_managed_external_buffer<
        char, boost::interprocess::rbtree_best_fit<boost::interprocess::mutex_family>,
        boost::interprocess::null_index>
        manager_;
};

}  // namespace ndarena::bench
