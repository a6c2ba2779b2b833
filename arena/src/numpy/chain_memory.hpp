// A resource behind malloc's interface: where a chain meets those who allocate
// without saying sizes. Private to this layer.
#pragma once

#include "numpy/target.hpp"

#include <utility>

namespace ndarena::numpy {

// NumPy's sizes are not reliable, and Python's allocators have none: it keeps its own.
struct chain_memory {
    resources::resource_ptr top;
    resources::size_map sizes;

    void* allocate(std::size_t nbytes, bool zero) noexcept {
        nbytes = nbytes == 0 ? 1 : nbytes;
        void* p = top->allocate(nbytes, resources::least_alignment, zero);
        if (p != nullptr && !sizes.insert(p, nbytes)) {
            top->deallocate(p, nbytes, resources::least_alignment);
            return nullptr;
        }
        return p;
    }
    void* reallocate(void* p, std::size_t nbytes) noexcept {
        if (p == nullptr) {
            return allocate(nbytes, false);
        }
        void* q = nullptr;
        (void)reallocate_known(p, nbytes, q);
        return q;
    }
    // False, and nothing has happened, if it never gave `p` out.
    bool reallocate_known(void* p, std::size_t nbytes, void*& q) noexcept {
        nbytes = nbytes == 0 ? 1 : nbytes;
        auto known = sizes.take_out(p);
        if (!known) {
            return false;
        }
        const std::size_t old = known.mapped();
        q = top->reallocate(p, old, nbytes, resources::least_alignment);
        sizes.put(std::move(known), q == nullptr ? p : q, q == nullptr ? old : nbytes);
        return true;
    }
    // Memory that it never gave out is left alone, with false. Null is routine.
    bool deallocate(void* p) noexcept {
        const auto known = p == nullptr ? resources::size_map::node() : sizes.take(p);
        if (!known) {
            return false;
        }
        top->deallocate(p, known.mapped(), resources::least_alignment);
        return true;
    }
    void free(void* p, std::size_t /*nbytes*/) noexcept { (void)deallocate(p); }
};

}  // namespace ndarena::numpy
