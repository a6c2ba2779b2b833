// Functions with malloc's signatures: those of a library that was loaded.
#pragma once

#include "resources/unaligned_resource.hpp"

namespace ndarena::resources {

// `calloc`, `realloc` and `aligned_alloc` may be null, and `malloc` where
// `aligned_alloc` is not.
struct functions {
    void* (*malloc)(std::size_t) = nullptr;
    void (*free)(void*) = nullptr;
    void* (*calloc)(std::size_t, std::size_t) = nullptr;
    void* (*realloc)(void*, std::size_t) = nullptr;
    void* (*aligned_alloc)(std::size_t, std::size_t) = nullptr;
};

class function_resource final : public unaligned_resource {
public:
    function_resource(const functions& to, std::shared_ptr<counters> counts) noexcept
        : unaligned_resource(std::move(counts)), to_(to) {}

private:
    // Too little alignment is no memory: NumPy would crash on it.
    void* usable(void* p) const noexcept {
        if ((reinterpret_cast<std::uintptr_t>(p) & (least_alignment - 1)) == 0) {
            return p;
        }
        to_.free(p);
        return nullptr;
    }
    void* aligned(std::size_t nbytes, std::size_t alignment, bool zero) const noexcept {
        if (nbytes > SIZE_MAX - alignment) {
            return nullptr;
        }
        void* p = usable(to_.aligned_alloc(alignment, base::align_up(nbytes, alignment)));
        if (p != nullptr && zero) {
            std::memset(p, 0, nbytes);
        }
        return p;
    }
    void* plain_allocate(std::size_t nbytes, bool zero) noexcept override {
        if (to_.malloc == nullptr) {
            return aligned(nbytes, least_alignment, zero);
        }
        if (zero && to_.calloc != nullptr) {
            return usable(to_.calloc(nbytes, 1));
        }
        void* p = usable(to_.malloc(nbytes));
        if (p != nullptr && zero) {
            std::memset(p, 0, nbytes);
        }
        return p;
    }
    void plain_deallocate(void* p, std::size_t /*nbytes*/) noexcept override { to_.free(p); }
    void* plain_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes) noexcept override {
        return to_.realloc != nullptr ? to_.realloc(p, nbytes)
                                      : unaligned_resource::plain_reallocate(p, old_bytes, nbytes);
    }
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        return alignment > least_alignment && to_.aligned_alloc != nullptr
                   ? aligned(nbytes, alignment, zero)
                   : unaligned_resource::do_allocate(nbytes, alignment, zero);
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        if (to_.aligned_alloc != nullptr) {
            to_.free(p);
        } else {
            unaligned_resource::do_deallocate(p, nbytes, alignment);
        }
    }

    functions to_;
};

}  // namespace ndarena::resources
