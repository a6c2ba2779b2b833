// Functions as a library or an extension would bring them; memory that is not
// asked for as zeros is full of something else.
#pragma once

#include "resources/upstreams.hpp"

#include <cstdlib>

namespace ndarena::resources {

inline void* dirty(void* p, std::size_t nbytes) {
    if (p != nullptr) {
        std::memset(p, 0xA5, nbytes);
    }
    return p;
}
inline void* dirty_malloc(std::size_t nbytes) { return dirty(std::malloc(nbytes), nbytes); }
inline void* dirty_aligned(std::size_t alignment, std::size_t nbytes) {
    EXPECT_EQ(nbytes % alignment, 0U) << "C11 wants a multiple";
    return dirty(std::aligned_alloc(alignment, nbytes), nbytes);
}

// Those of the C library; without `malloc` there is `aligned_alloc`.
inline functions of_the_c_library(bool malloc, bool calloc, bool realloc, bool aligned) {
    functions f;
    f.malloc = malloc ? &dirty_malloc : nullptr;
    f.free = &std::free;
    f.calloc = calloc ? &std::calloc : nullptr;
    f.realloc = realloc ? &std::realloc : nullptr;
    f.aligned_alloc = aligned ? &dirty_aligned : nullptr;
    return f;
}

// The table of an extension whose context is a strict_malloc.
inline foreign_functions of_an_extension(strict_malloc& context, bool reallocate) {
    foreign_functions f;
    f.context = &context;
    f.allocate = [](void* c, std::size_t nbytes, std::size_t alignment, int zero) {
        return static_cast<strict_malloc*>(c)->allocate(nbytes, alignment, zero != 0);
    };
    f.deallocate = [](void* c, void* p, std::size_t nbytes, std::size_t alignment) {
        static_cast<strict_malloc*>(c)->deallocate(p, nbytes, alignment);
    };
    if (reallocate) {
        f.reallocate = [](void* c, void* p, std::size_t old_bytes, std::size_t nbytes,
                          std::size_t alignment) {
            return static_cast<strict_malloc*>(c)->reallocate(p, old_bytes, nbytes, alignment);
        };
    }
    return f;
}

}  // namespace ndarena::resources
